// Keeps the page current: fetches its live part again and again, and says so when it can't.
// What is fetched was escaped by the server. Without this script the page reloads itself.
"use strict";
(() => {
  const { fragment, everyS } = document.body.dataset;
  if (!fragment) return;
  const live = document.getElementById("live");
  const unreachable = document.getElementById("unreachable");
  const pause = Math.max(1, Number(everyS) || 2) * 1000;
  let since = new Date();

  const isBusy = () => document.hidden || String(getSelection()).length > 0;

  function show(html) {
    const open = [...live.querySelectorAll("details[open]")].map((one) => one.id);
    const focused = document.activeElement && live.contains(document.activeElement)
      ? document.activeElement.getAttribute("href") : null;
    live.innerHTML = html;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focused) [...live.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
    document.title = `${document.getElementById("headline").textContent} · ${document.title.split(" · ").pop()}`;
  }

  async function look() {
    if (!isBusy()) {
      try {
        const answer = await fetch(fragment, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
        if (!answer.ok) throw new Error(String(answer.status));
        show(await answer.text());
        since = new Date();
        unreachable.hidden = true;
      } catch {
        unreachable.textContent = "This page can’t reach its server; what you see is of " + since.toLocaleTimeString() + ".";
        unreachable.hidden = false;
      }
    }
    setTimeout(look, pause);
  }
  setTimeout(look, pause);
})();
