//! L8 while the load runs: of one host, in one snapshot, each seq up to the highest is either
//! readable in `metrics` or named in `gaps`, never both and never neither.

use std::collections::BTreeSet;
use std::time::Duration;

use spillway_proto::series::Canonical;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Row as _};
use tokio::time::timeout;

use crate::books::{Gap, gap};
use crate::recipe::metric_of;
use crate::verdict::Findings;

const QUERY_DEADLINE: Duration = Duration::from_secs(20);

/// Whose batches are looked for, and where.
#[derive(Clone, Debug)]
pub struct Honest {
    pub reader: String,
    pub environment: String,
    pub host: String,
    pub first_window_ts: u32,
}

/// What one look compared; an error says that MySQL did not answer, which is no finding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    pub seqs: u64,
    pub missing: u64,
}

impl Honest {
    /// Looks once.
    ///
    /// # Errors
    /// MySQL does not answer: it may just have been killed.
    pub async fn look(&self, found: &mut Findings) -> Result<Looked, sqlx::Error> {
        let late = |_| sqlx::Error::PoolTimedOut;
        let connecting = MySqlConnection::connect(&self.reader);
        let mut conn = timeout(QUERY_DEADLINE, connecting).await.map_err(late)??;
        let looked = timeout(QUERY_DEADLINE, self.snapshot(&mut conn, found)).await;
        looked.map_err(late)?
    }

    async fn snapshot(
        &self,
        conn: &mut MySqlConnection,
        found: &mut Findings,
    ) -> Result<Looked, sqlx::Error> {
        use sqlx::Executor as _;
        conn.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        let highest = "SELECT CAST(COALESCE(MAX(highest_seq), 0) AS UNSIGNED) \
                       FROM spillway.ledger_totals WHERE environment = ? AND host = ?";
        let highest = sqlx::query(highest).bind(&self.environment).bind(&self.host);
        let highest: u64 = highest.fetch_one(&mut *conn).await?.try_get(0)?;
        let gaps = "SELECT agent_id, epoch, CAST(first_seq AS UNSIGNED), \
                    CAST(last_seq AS UNSIGNED), state FROM spillway.gaps \
                    WHERE environment = ? AND host = ?";
        let gaps = sqlx::query(gaps).bind(&self.environment).bind(&self.host);
        let gaps = gaps.fetch_all(&mut *conn).await?;
        let gaps: Vec<Gap> = gaps.iter().map(gap).collect::<Result<_, _>>()?;
        let windows = "SELECT CAST(ts AS UNSIGNED) FROM spillway.metrics_10s WHERE series_id = ?";
        let windows = sqlx::query(windows).bind(self.series_id());
        let windows = windows.fetch_all(&mut *conn).await?;
        let present: BTreeSet<u64> =
            windows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(self.judge(highest, &gaps, &present, found))
    }

    fn judge(
        &self,
        highest: u64,
        gaps: &[Gap],
        present: &BTreeSet<u64>,
        found: &mut Findings,
    ) -> Looked {
        // What is readable proves how far it came, whatever the books say.
        let windows = present.last().and_then(|last| last.checked_sub(self.first_window_ts.into()));
        let highest = highest.max(windows.map_or(0, |ahead| ahead / 10 + 1));
        let mut looked = Looked { seqs: highest, missing: 0 };
        for seq in 1..=highest {
            let window_ts = u64::from(self.first_window_ts) + (seq - 1) * 10;
            let is_told =
                gaps.iter().any(|gap| gap.first <= seq && gap.last.is_none_or(|last| seq <= last));
            let is_there = present.contains(&window_ts);
            looked.missing += u64::from(is_told);
            if is_told == is_there {
                let what = if is_there { "is there and in gaps" } else { "is missing in silence" };
                found.push(None, || format!("{} seq {seq} of {highest} {what}", self.host));
            }
        }
        looked
    }

    /// The series that is constant 1: in every batch.
    fn series_id(&self) -> u64 {
        let labels = [("origin", "made-up")];
        let mut canonical = Canonical::of_host(&self.environment, &self.host);
        canonical.identify(&metric_of(0), labels.into_iter()).id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_is_there_or_told_of_and_never_both_or_neither() {
        let honest = Honest {
            reader: String::new(),
            environment: "demo".into(),
            host: "h".into(),
            first_window_ts: 1_000,
        };
        let gap = Gap { key: Default::default(), first: 2, last: Some(2), state: "late".into() };
        let judged_to = |highest: u64, present: &[u64], gaps: &[Gap]| {
            let mut found = Findings::default();
            honest.judge(highest, gaps, &present.iter().copied().collect(), &mut found);
            found.count()
        };
        let judged = |present: &[u64], gaps: &[Gap]| judged_to(3, present, gaps);
        assert_eq!(
            judged_to(1, &[1_000, 1_020], &[]),
            1,
            "books that know too little hide nothing"
        );
        assert_eq!(judged(&[1_000, 1_020], std::slice::from_ref(&gap)), 0);
        assert_eq!(judged(&[1_000, 1_020], &[]), 1);
        assert_eq!(judged(&[1_000, 1_010, 1_020], std::slice::from_ref(&gap)), 1);
    }
}
