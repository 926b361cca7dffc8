//! Every f64 that is stored comes back from the views with the bits it went in with.

use spillway_consumer::store::values::{encode_vals, normalize, summarize};
use sqlx::{MySqlConnection, QueryBuilder};

use crate::server::{Server, number};

const VALUES: usize = 100_000;
/// Samples a row, in turn: the one-point row, a plain array, and irregular pairs.
const SHAPES: [usize; 3] = [1, 10, 60];
const ROWS_PER_INSERT: usize = 500;

type Row = (u64, u32, Vec<(i64, f64)>);

/// xorshift64*: the same values in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Any finite bit pattern; every fourth one an everyday number, so that bare ones are tried.
    fn value(&mut self) -> f64 {
        let bits = self.next();
        match bits % 8 {
            0 => f64::from(u32::try_from(bits >> 40).unwrap()) / 1000.0,
            1 => f64::from(u32::try_from(bits >> 34).unwrap()) * 1e-12,
            2 => f64::from_bits(bits >> 12), // denormal
            _ => Some(f64::from_bits(self.next())).filter(|v| v.is_finite()).unwrap_or(f64::MAX),
        }
    }
}

fn extremes() -> Vec<f64> {
    let powers = (-330..=308).map(|e| format!("1e{e}").parse().unwrap());
    let around = [52, 53, 62, 63, 64].into_iter().flat_map(|e| {
        let power = 2f64.powi(e);
        [power - 1.0, power, power + 1.0, power + 2.0]
    });
    let special = [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::EPSILON, 0.1];
    let digits = ["0.123456789012345", "0.1234567890123456", "999999999999999e-22"];
    let digits = digits.into_iter().map(|text| text.parse().unwrap());
    let all: Vec<f64> = powers.chain(around).chain(special).chain(digits).collect();
    all.iter().flat_map(|v| [*v, -*v]).collect()
}

fn rows(window_ts: u32) -> Vec<Row> {
    let mut random = Random(0x5EED);
    let mut values: Vec<f64> = (0..VALUES).map(|_| random.value()).collect();
    values.extend(extremes());
    let (mut rows, mut rest, mut id) = (Vec::new(), values.as_slice(), 1u64);
    for shape in SHAPES.iter().cycle() {
        let (head, tail) = rest.split_at((*shape).min(rest.len()));
        let step = 10_000 / i64::try_from(*shape).unwrap();
        let mut samples: Vec<(i64, f64)> =
            (0i64..).zip(head).map(|(i, v)| (i * step, *v)).collect();
        normalize(&mut samples);
        rows.push((id, window_ts, samples));
        (rest, id) = (tail, id + 1);
        if rest.is_empty() {
            return rows;
        }
    }
    rows
}

async fn store(conn: &mut MySqlConnection, rows: &[Row]) {
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let mut series = QueryBuilder::new("INSERT INTO spillway_store.series VALUES ");
        let mut comma = "";
        for (id, ..) in chunk {
            series.push(format!("{comma}({id},'demo','h','m','{{}}',1,'',REPEAT('x',16),1,1)"));
            comma = ",";
        }
        series.build().persistent(false).execute(&mut *conn).await.unwrap();
        let mut points = QueryBuilder::new("INSERT INTO spillway_store.points ");
        points.push_values(chunk, |mut row, (id, window_ts, samples)| {
            let mut vals = Vec::new();
            encode_vals(&mut vals, samples);
            let summary = summarize(samples);
            row.push_bind(id).push_bind(window_ts).push_bind(summary.map(|s| s.cnt));
            for column in [
                summary.and_then(|s| s.sum),
                summary.and_then(|s| s.min),
                summary.and_then(|s| s.max),
                summary.and_then(|s| s.first),
                summary.and_then(|s| s.last),
            ] {
                row.push_bind(column);
            }
            row.push_bind(String::from_utf8(vals).unwrap());
        });
        points.build().persistent(false).execute(&mut *conn).await.unwrap();
    }
}

/// MariaDB has no minus zero: it comes back as zero, which equals it.
fn bits(value: f64, minus_zero: bool) -> u64 {
    if value == 0.0 && !minus_zero { 0 } else { value.to_bits() }
}

#[tokio::test]
async fn every_f64_comes_back_with_its_own_bits() {
    let mut server = Server::migrated().await;
    let minus_zero = !server.is_mariadb().await;
    let window_ts = number(&mut server.conn, "SELECT UNIX_TIMESTAMP() DIV 10 * 10").await;
    let window_ts = u32::try_from(window_ts).unwrap();
    let rows = rows(window_ts);
    store(&mut server.conn, &rows).await;

    let sql = "SELECT series_id, ts, value FROM spillway.metrics ORDER BY series_id, ts";
    let read: Vec<(u64, f64, f64)> = sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    let expected = rows.iter().flat_map(|(id, window, samples)| {
        samples.iter().map(|(dt_ms, value)| {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let ts = (i64::from(*window) * 1000 + dt_ms) as f64 / 1000.0;
            (*id, ts, *value)
        })
    });
    let mut checked = 0usize;
    for (got, want) in read.iter().zip(expected) {
        assert_eq!((got.0, got.1), (want.0, want.1));
        let (got, want) = (bits(got.2, minus_zero), bits(want.2, minus_zero));
        assert_eq!(got, want, "{:e} came back as {:e}", f64::from_bits(want), f64::from_bits(got));
        checked += 1;
    }
    assert_eq!(checked, rows.iter().map(|row| row.2.len()).sum::<usize>());
    assert!(checked >= VALUES, "{checked}");
}

#[tokio::test]
async fn a_one_point_row_has_its_summary_from_its_text_to_the_bit() {
    let mut server = Server::migrated().await;
    let minus_zero = !server.is_mariadb().await;
    let window_ts = number(&mut server.conn, "SELECT UNIX_TIMESTAMP() DIV 10 * 10").await;
    let window_ts = u32::try_from(window_ts).unwrap();
    let mut random = Random(0xB0B);
    let values: Vec<f64> = (0..10_000).map(|_| random.value()).chain(extremes()).collect();
    let one = |(id, value): (u64, &f64)| (id, window_ts, vec![((id % 2).cast_signed(), *value)]);
    let rows: Vec<Row> = (1u64..).zip(&values).map(one).collect();
    store(&mut server.conn, &rows).await;
    let sql = "SELECT cnt, `sum`, `min`, `max`, `avg`, `first`, `last`
               FROM spillway.metrics_10s ORDER BY series_id";
    let read: Vec<(i64, f64, f64, f64, f64, f64, f64)> =
        sqlx::query_as(sql).fetch_all(&mut server.conn).await.unwrap();
    assert_eq!(read.len(), values.len());
    for (got, want) in read.iter().zip(&values) {
        assert_eq!(got.0, 1);
        for column in [got.1, got.2, got.3, got.4, got.5, got.6] {
            assert_eq!(bits(column, minus_zero), bits(*want, minus_zero), "{want:e}");
        }
    }
}
