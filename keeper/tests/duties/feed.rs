//! Points as a consumer writes them: rows merged by time and the minute's mark raised, in one
//! transaction of the test's own.

use std::collections::BTreeMap;

use spillway_consumer::store::values::{
    Summary, decode_vals, encode_vals, merge, normalize, summarize,
};
use sqlx::{Executor, MySqlConnection};

/// A host with three series, one of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Host(pub u64);

/// Samples as (ms since the epoch, value).
pub type Samples = Vec<(i64, f64)>;

pub const KINDS: [u64; 3] = [1, 2, 3];

impl Host {
    /// The id of its series of this kind (3 is cumulative).
    pub fn series(self, kind: u64) -> u64 {
        self.0 * 10 + kind
    }

    /// Its row, and its series'.
    pub async fn create(self, conn: &mut MySqlConnection) {
        let host = self.0;
        run(
            conn,
            &format!(
                "INSERT INTO spillway_store.hosts (host_id, environment, host, first_seen_ts,
                   last_seen_ts) VALUES ({host}, 'demo', 'h{host}', 1, 1)"
            ),
        )
        .await;
        for kind in KINDS {
            let id = self.series(kind);
            run(
                conn,
                &format!(
                    "INSERT INTO spillway_store.series VALUES ({id}, 'demo', 'h{host}',
                       'm{kind}', '{{}}', {kind}, '', REPEAT('x', 16), 1, 1)"
                ),
            )
            .await;
        }
    }

    /// What one batch brings for one series: rows and marks, in the transaction `conn` is in.
    pub async fn store(self, conn: &mut MySqlConnection, kind: u64, samples: &[(i64, f64)]) {
        let mut windows: BTreeMap<i64, Samples> = BTreeMap::new();
        for (ts_ms, value) in samples {
            let window = ts_ms.div_euclid(10_000) * 10;
            windows.entry(window).or_default().push((ts_ms - window * 1_000, *value));
        }
        for (window, mut arrived) in windows {
            normalize(&mut arrived);
            self.store_window(conn, kind, (window, &arrived)).await;
            let (host, minute) = (self.0, window / 60 * 60);
            run(
                conn,
                &format!(
                    "INSERT INTO spillway_store.rollup_marks VALUES ({host}, {minute}, 1)
                     ON DUPLICATE KEY UPDATE version = version + 1"
                ),
            )
            .await;
        }
    }

    async fn store_window(
        self,
        conn: &mut MySqlConnection,
        kind: u64,
        (window, arrived): (i64, &[(i64, f64)]),
    ) {
        let id = self.series(kind);
        // Makes the row or waits for whoever is at it.
        let ensure = "INSERT IGNORE INTO spillway_store.points (series_id, window_ts, vals)
                      VALUES (?, ?, '[]')";
        sqlx::query(ensure).bind(id).bind(window).execute(&mut *conn).await.unwrap();
        let sql = "SELECT CAST(vals AS BINARY) FROM spillway_store.points
                   WHERE series_id = ? AND window_ts = ? FOR UPDATE";
        let query = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(id).bind(window);
        let text = query.fetch_one(&mut *conn).await.unwrap();
        let mut stored = Vec::new();
        decode_vals(&text, &mut stored).unwrap();
        let both = merge(&stored, arrived);
        let mut vals = Vec::new();
        encode_vals(&mut vals, &both);
        let summary: Option<Summary> = summarize(&both);
        let sql = "REPLACE INTO spillway_store.points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut query = sqlx::query(sql).bind(id).bind(window).bind(summary.map(|s| s.cnt));
        let columns: [fn(Summary) -> Option<f64>; 5] =
            [|s| s.sum, |s| s.min, |s| s.max, |s| s.first, |s| s.last];
        for column in columns {
            query = query.bind(summary.and_then(column));
        }
        query.bind(vals).execute(&mut *conn).await.unwrap();
    }
}

pub async fn run(conn: &mut MySqlConnection, sql: &str) {
    // The executor's own method, whose future is boxed: the other form's is not provably Send.
    if let Err(error) = Executor::execute(conn, sqlx::raw_sql(sql)).await {
        panic!("{error}\n{sql}");
    }
}

/// Numbers that look random and are the same each time (xorshift64*).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// One sample: mostly a small number with a fraction, sometimes none at all.
    pub fn value(&mut self) -> f64 {
        match self.below(20) {
            0 => f64::NAN,
            1 => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "small")]
            _ => self.below(1_000_000) as f64 / 7.0,
        }
    }
}
