//! The text of a statement in which only our own words, numbers and hex digits can stand: whatever
//! a sender calls its host, it can't become SQL. And the one way to run such text.
//!
//! Many small statements of one transaction go to the server in one packet and one round trip;
//! only the rows of `points` are worth preparing.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use spillway_runtime::deadline::within;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Decode, MySql, Row, Type};

use super::StoreError;

/// One or several statements, growing.
#[derive(Debug, Default)]
pub struct Sql {
    text: String,
}

impl Sql {
    /// Starts with our own words.
    #[must_use]
    pub fn new(words: &'static str) -> Self {
        Self { text: words.to_owned() }
    }

    pub fn words(&mut self, words: &'static str) -> &mut Self {
        self.text.push_str(words);
        self
    }

    pub fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        // Writing to a String can't fail.
        write!(self.text, "{}", number.into()).unwrap_or_default();
        self
    }

    pub fn number_or_null(&mut self, number: Option<impl Into<i128>>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.words("NULL"),
        }
    }

    /// BINARY and VARBINARY columns.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.words("x'").hex(bytes).words("'")
    }

    /// VARCHAR and TEXT columns.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.words("_utf8mb4 x'").hex(text.as_bytes()).words("'")
    }

    pub fn text_or_null(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.words("NULL"),
        }
    }

    pub fn comma(&mut self) -> &mut Self {
        self.words(", ")
    }

    /// `(…), (…)`, one pair of brackets per item.
    pub fn rows<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut row: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (place, item) in items.into_iter().enumerate() {
            self.words(if place == 0 { "(" } else { ", (" });
            row(self, item);
            self.words(")");
        }
        self
    }

    /// `…, …`
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (place, each) in items.into_iter().enumerate() {
            if place > 0 {
                self.comma();
            }
            item(self, each);
        }
        self
    }

    /// Goes on with what another one says.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.text.push_str(&other.text);
        self
    }

    /// Ends one statement; another may follow.
    pub fn end(&mut self) -> &mut Self {
        self.words(";\n")
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn hex(&mut self, bytes: &[u8]) -> &mut Self {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        // A nibble is always below 16.
        self.text.extend(digits.filter_map(|nibble| DIGITS.get(usize::from(nibble))));
        self
    }
}

/// What one statement answered.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<MySqlRow>,
    /// Rows matched or inserted.
    pub affected: u64,
}

/// Runs the statements and returns one answer each, or the first error, which ends the run.
pub async fn run(
    conn: &mut MySqlConnection,
    limit: Duration,
    sql: &Sql,
) -> Result<Vec<Answer>, StoreError> {
    within(limit, collect(conn, sql)).await?
}

async fn collect(conn: &mut MySqlConnection, sql: &Sql) -> Result<Vec<Answer>, StoreError> {
    let mut answers = Vec::new();
    let mut rows = Vec::new();
    let mut events = sqlx::raw_sql(sql.as_str()).fetch_many(conn);
    while let Some(event) = events.next().await {
        match event? {
            sqlx::Either::Left(done) => answers
                .push(Answer { rows: std::mem::take(&mut rows), affected: done.rows_affected() }),
            sqlx::Either::Right(row) => rows.push(row),
        }
    }
    Ok(answers)
}

/// One column of a row, by its place.
pub fn get<'r, T>(row: &'r MySqlRow, column: usize) -> Result<T, StoreError>
where
    T: Decode<'r, MySql> + Type<MySql>,
{
    Ok(row.try_get::<T, usize>(column)?)
}

/// A BINARY(16) column.
pub fn get_id(row: &MySqlRow, column: usize) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| StoreError::Shape("an id that is not 16 bytes long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_become_sql() {
        let mut sql = Sql::new("VALUES ");
        sql.rows(["'); DROP TABLE points; --", "ü"], |sql, text| {
            sql.text(text).comma().number(7_u64).comma().number_or_null(None::<i64>);
        });
        let hex = "27293b2044524f50205441424c4520706f696e74733b202d2d";
        assert_eq!(
            sql.as_str(),
            format!("VALUES (_utf8mb4 x'{hex}', 7, NULL), (_utf8mb4 x'c3bc', 7, NULL)")
        );
    }
}
