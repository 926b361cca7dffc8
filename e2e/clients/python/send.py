"""Sends known points with a client library of another maker, and prints what was sent.

    send.py CLIENT API TOKEN FIRST COUNT BY

Points FIRST … FIRST+COUNT-1, one a second from a fixed start in the past, of two hosts each. A
library that tries again by itself does so; for the others the application does, until BY (Unix
seconds). The last line of the output is JSON: for each point metric, host, labels, time in ms and
value, as the program meant them. Anything that is not accepted in the end is an exit code of 1.
"""

import json
import sys
import time

HOSTS = ("alpha", "beta")
PAUSE_S = 0.5


class Sent:
    """What the program wants to be in MySQL."""

    def __init__(self):
        self.points = []

    def add(self, metric, host, labels, ts_s, value):
        point = {"metric": metric, "host": host, "labels": labels}
        self.points.append(point | {"ts_ms": ts_s * 1000, "value": value})


def value_of(number, host):
    """A value that needs all its digits, another one for each point."""
    return number + HOSTS.index(host) / 3


def again(send, by):
    """The application's own patience, for libraries that have none."""
    while True:
        try:
            return send()
        except Exception as error:
            if time.time() > by:
                raise
            print("again:", type(error).__name__, str(error)[:200], flush=True)
            time.sleep(PAUSE_S)


def influxdb_client_v2(api, token, times, by, sent):
    from influxdb_client import InfluxDBClient, Point, WriteOptions, WritePrecision

    patience_ms = int((by - time.time()) * 1000)
    options = WriteOptions(
        batch_size=50,
        flush_interval=500,
        retry_interval=500,
        max_retries=60,
        max_retry_delay=2_000,
        max_retry_time=patience_ms,
    )
    failed = []

    def lost(_conf, _data, error):
        failed.append(error)

    with InfluxDBClient(api, token=token, org="any", enable_gzip=True) as client:
        with client.write_api(write_options=options, error_callback=lost) as writer:
            for number, ts_s in times:
                for host in HOSTS:
                    value = value_of(number, host)
                    point = Point("influx two").tag("host", host).tag("zone", "a=b, c")
                    point = point.field("the value", value).time(ts_s, WritePrecision.S)
                    writer.write(bucket="any", record=point)
                    sent.add("influx two_the value", host, {"zone": "a=b, c"}, ts_s, value)
    assert not failed, failed


def influxdb_v1(api, token, times, by, sent):
    from urllib.parse import urlsplit

    from influxdb import InfluxDBClient

    at = urlsplit(api)
    # The library tries again after a broken connection, the application after a 503.
    client = InfluxDBClient(at.hostname, at.port, "any", token, "any", gzip=True, retries=5)
    again(lambda: client.create_database("any"), by)
    for number, ts_s in times:
        points = []
        for host in HOSTS:
            tags = {"host": host, "zone": "ä"}
            value = value_of(number, host)
            fields = {"value": value, "whole": number, "yes": True, "text": "no point"}
            points.append({"measurement": "influx1", "tags": tags, "time": ts_s, "fields": fields})
            for field, stored in (("value", value), ("whole", number), ("yes", 1)):
                sent.add(f"influx1_{field}", host, {"zone": "ä"}, ts_s, stored)
        again(lambda batch=points: client.write_points(batch, time_precision="s"), by)


def otlp(api, token, times, by, sent):
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Metric,
        MetricExportResult,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    exporter = OTLPMetricExporter(
        endpoint=f"{api}/v1/metrics",
        headers={"Authorization": f"Bearer {token}"},
        compression=Compression.Gzip,
        timeout=by - time.time(),
    )
    scope = InstrumentationScope("drill", "1")
    for number, ts_s in times:
        of_hosts = []
        for host in HOSTS:
            value = value_of(number, host)
            point = NumberDataPoint({"path": "/a"}, (ts_s - 60) * 10**9, ts_s * 10**9, value)
            whole = NumberDataPoint({"path": "/a"}, (ts_s - 60) * 10**9, ts_s * 10**9, number)
            cumulative = AggregationTemporality.CUMULATIVE
            metrics = [
                Metric("otlp.gauge", "", "s", Gauge([point])),
                Metric("otlp.sum", "", "1", Sum([whole], cumulative, True)),
            ]
            resource = Resource({"host.name": host, "service.name": "drill"})
            of_hosts.append(ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], ""))
            labels = {"path": "/a", "service.name": "drill", "otel.scope.name": "drill"}
            sent.add("otlp.gauge", host, labels, ts_s, value)
            sent.add("otlp.sum", host, labels, ts_s, number)

        def export(data=MetricsData(of_hosts)):
            if exporter.export(data) is not MetricExportResult.SUCCESS:
                raise RuntimeError("not exported")

        again(export, by)


def datadog_api_client_v2(api, token, times, by, sent):
    from datadog_api_client import ApiClient, Configuration
    from datadog_api_client.v2.api.metrics_api import MetricsApi
    from datadog_api_client.v2.model.metric_content_encoding import MetricContentEncoding
    from datadog_api_client.v2.model.metric_intake_type import MetricIntakeType
    from datadog_api_client.v2.model.metric_payload import MetricPayload
    from datadog_api_client.v2.model.metric_point import MetricPoint
    from datadog_api_client.v2.model.metric_resource import MetricResource
    from datadog_api_client.v2.model.metric_series import MetricSeries

    configuration = Configuration(host=api, api_key={"apiKeyAuth": token, "appKeyAuth": "any"})
    configuration.enable_retry, configuration.max_retries = True, 5
    configuration.retry_backoff_factor = 2
    codings = [MetricContentEncoding.GZIP, MetricContentEncoding.DEFLATE]
    codings += [MetricContentEncoding.ZSTD1, None]
    with ApiClient(configuration) as client:
        metrics = MetricsApi(client)
        for number, ts_s in times:
            series = []
            for host in HOSTS:
                value = value_of(number, host)
                one = MetricSeries(
                    metric="datadog.two",
                    type=MetricIntakeType(3),
                    points=[MetricPoint(timestamp=ts_s, value=value)],
                    resources=[MetricResource(name=host, type="host")],
                    tags=["zone:a", "role:x", "role:b", "bare"],
                )
                series.append(one)
                sent.add(
                    "datadog.two", host, {"zone": "a", "role": "b,x", "bare": ""}, ts_s, value
                )
            coding = codings[number % len(codings)]
            more = {} if coding is None else {"content_encoding": coding}
            payload = MetricPayload(series=series)
            again(lambda p=payload, m=more: metrics.submit_metrics(body=p, **m), by)


def datadog_v1(api, token, times, by, sent):
    import datadog

    host = {"api_host": api, "hostname_from_config": False}
    datadog.initialize(api_key=token, app_key="any", mute=False, **host)
    for number, ts_s in times:
        for host in HOSTS:
            value = value_of(number, host)
            series = [
                {"metric": "datadog.one", "points": [(ts_s, value)], "type": "gauge"},
                {"metric": "datadog.one.count", "points": [(ts_s, number)], "type": "count"},
            ]
            for one in series:
                one |= {"host": host, "tags": ["zone:a"]}

            def send(series=series):
                answer = datadog.api.Metric.send(series)
                assert answer == {"status": "ok"}, answer

            again(send, by)
            sent.add("datadog.one", host, {"zone": "a"}, ts_s, value)
            sent.add("datadog.one.count", host, {"zone": "a"}, ts_s, number)


CLIENTS = {
    "influxdb-client": influxdb_client_v2,
    "influxdb": influxdb_v1,
    "opentelemetry": otlp,
    "datadog-api-client": datadog_api_client_v2,
    "datadog": datadog_v1,
}


def main():
    client, api, token, first, count, by = sys.argv[1:]
    first, count, by = int(first), int(count), float(by)
    start_s = int(by) // 3600 * 3600 - 7200
    times = [(number, start_s + number) for number in range(first, first + count)]
    sent = Sent()
    CLIENTS[client](api, token, times, by, sent)
    print(json.dumps(sent.points), flush=True)


main()
