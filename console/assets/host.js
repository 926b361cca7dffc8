// Draws one chart for each figure of the host view, from series.json. Labels are customers' text:
// they become text nodes, never markup.
"use strict";
(() => {
  const { series: url, rangeS, stepS } = document.body.dataset;
  const COLOURS = ["#1c8aa3", "#d98324", "#7c5cc4", "#4f9a5b", "#c4507f", "#8a8f2c", "#5278c9", "#a5673f"];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function human(value, unit) {
    if (value == null) return "–";
    const isBytes = unit.startsWith("bytes");
    let scaled = Math.abs(value), step = 0;
    while (scaled >= 1000 && step < 5) { scaled /= 1000; step += 1; }
    const digits = scaled >= 100 || Number.isInteger(scaled) ? 0 : scaled >= 10 ? 1 : 2;
    const prefix = ["", "k", "M", "G", "T", "P"][step];
    const tail = unit === "%" ? " %" : isBytes ? ` ${prefix}B${unit.slice(5)}` : prefix;
    return (value < 0 ? "-" : "") + scaled.toFixed(digits) + tail;
  }

  // 21:20, and with more than a day in the chart 11-21.
  function clock(at, rangeS) {
    const time = new Date(at * 1000);
    const two = (n) => String(n).padStart(2, "0");
    return rangeS > 86400 ? `${two(time.getMonth() + 1)}-${two(time.getDate())}` : `${two(time.getHours())}:${two(time.getMinutes())}`;
  }

  function legend(list, series, colours) {
    series.forEach((one, i) => {
      const item = document.createElement("li");
      const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      mark.setAttribute("viewBox", "0 0 10 10");
      mark.setAttribute("aria-hidden", "true");
      for (const [key, value] of Object.entries({ width: 10, height: 10, rx: 2, fill: colours[i] })) rect.setAttribute(key, value);
      mark.append(rect);
      item.append(mark, one.label || "value");
      list.append(item);
    });
  }

  // What is known to be missing stands behind the curves; a mark is at least 2 px wide.
  const gaps = JSON.parse(document.body.dataset.gaps || "[]");

  function shade(chart) {
    const { left, top, width, height } = chart.bbox;
    chart.ctx.save();
    chart.ctx.beginPath();
    chart.ctx.rect(left, top, width, height);
    chart.ctx.clip();
    for (const [from, to, state] of gaps) {
      const [a, b] = [from, to].map((at) => chart.valToPos(at, "x", true));
      chart.ctx.fillStyle = css(state === "lost" || state === "declared" ? "--wash-down" : "--wash-degraded");
      chart.ctx.fillRect(a, top, Math.max(b - a, 2), height);
    }
    chart.ctx.restore();
  }

  function draw(figure, data) {
    const plot = figure.querySelector(".plot");
    const unit = figure.dataset.unit + (figure.dataset.rate === "true" ? "/s" : "");
    if (!data.series.length) throw new Error("nothing in this time");
    const colours = data.series.map((_, i) => COLOURS[i % COLOURS.length]);
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const now = Date.now() / 1000;
    const chart = new uPlot({
      width: plot.clientWidth, height: plot.clientHeight, legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { x: { min: now - Number(rangeS), max: now }, y: { range: (_, low, high) => unit === "%" ? [0, Math.max(100, high)] : [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
      axes: [{ ...axis, size: 28, space: 70, values: (_, ticks) => ticks.map((tick) => clock(tick, Number(rangeS))) }, { ...axis, size: 78, values: (_, ticks) => ticks.map((tick) => human(tick, unit)) }],
      series: [{}, ...data.series.map((one, i) => ({ label: one.label, stroke: colours[i], width: 1.6, points: { show: false }, spanGaps: false }))],
      hooks: { drawClear: [shade], setCursor: [(u) => readout(figure, u, data, unit)] },
    }, [data.ts, ...data.series.map((one) => one.values)], plot);
    legend(figure.querySelector(".legend"), data.series, colours);
    new ResizeObserver(() => chart.setSize({ width: plot.clientWidth, height: plot.clientHeight })).observe(plot);
  }

  // The values under the cursor stand in the legend.
  function readout(figure, chart, data, unit) {
    const at = chart.cursor.idx;
    figure.querySelectorAll(".legend li").forEach((item, i) => {
      const value = at == null ? "" : "  " + human(data.series[i].values[at], unit);
      item.lastChild.textContent = (data.series[i].label || "value") + value;
    });
  }

  async function fill(figure) {
    const query = new URLSearchParams({ range: rangeS, metric: figure.dataset.metric });
    try {
      const answer = await fetch(`${url}?${query}`, { signal: AbortSignal.timeout(15_000) });
      if (!answer.ok) throw new Error(await answer.text());
      draw(figure, await answer.json());
      figure.dataset.drawn = "true";
    } catch (error) {
      const plot = figure.querySelector(".plot");
      plot.classList.add("failed");
      plot.textContent = "Can’t be drawn: " + error.message.slice(0, 200);
    }
  }

  const marks = document.querySelector(".marks");
  marks.querySelector("span").textContent = [...new Set(gaps.map((gap) => gap[2].replace("_", " ")))].join(", ");
  marks.hidden = gaps.length === 0;

  (async () => {
    for (const figure of document.querySelectorAll(".chart")) await fill(figure);
    document.body.dataset.ready = "true";
  })();
})();
