//! The migrations' files as statements. They hold a few named expressions in braces, so that the
//! arithmetic of times and UUIDs stands here once and the views stay readable.

/// The value of a row with one sample, from its text: what follows the last comma, or all of it,
/// without brackets and quotes. The server's strtod is exact, and 'null' is no number.
const ONE_VALUE: &str = "CAST(NULLIF(TRIM(BOTH '\"' FROM REPLACE(REPLACE(\
    SUBSTRING_INDEX(p.vals, ',', -1), '[', ''), ']', '')), 'null') AS DOUBLE)";

/// Where a gap begins, as far as it is known; one of more batches than this is not reckoned back.
/// Signed before anything is taken away, and bounded before it is multiplied: both would be errors.
const GAP_BEGINS: &str = "COALESCE(CAST(g.from_ts AS SIGNED), \
    GREATEST(CAST(g.to_ts AS SIGNED) \
      - 10 * CAST(LEAST(g.last_seq - g.first_seq + 2, 100000000) AS SIGNED), 0), \
    CAST(e.first_applied_at DIV 1000 AS SIGNED))";

/// Where it ends.
const GAP_ENDS: &str = "COALESCE(CAST(g.to_ts AS SIGNED), \
    CAST(e.successor_at DIV 1000 AS SIGNED), CAST(e.last_applied_at DIV 1000 AS SIGNED))";

/// `{name:column}` and what it stands for, with `$` for the column. None depends on the session's
/// time zone, and all are in MySQL 8.0 and MariaDB 10.11 alike.
const OF_COLUMN: [(&str, &str); 4] = [
    ("{time_of_s:", "CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL $ SECOND AS DATETIME(3))"),
    (
        "{time_of_ms:",
        "CAST(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL $ * 1000 MICROSECOND AS DATETIME(3))",
    ),
    // Milliseconds within a minute of the server's own clock: an older measurement says nothing of
    // now, nor does one that a clock far ahead has dated. The keeper's metrics have the same limit.
    (
        "{is_of_now:",
        "($ BETWEEN (UNIX_TIMESTAMP() - 60) * 1000 AND (UNIX_TIMESTAMP() + 60) * 1000)",
    ),
    (
        "{uuid:",
        "LOWER(INSERT(INSERT(INSERT(INSERT(HEX($), 21, 0, '-'), 17, 0, '-'), 13, 0, '-'), \
         9, 0, '-'))",
    ),
];

/// The text with every named expression but the partitions put in.
pub(super) fn expand(text: &str) -> String {
    let whole =
        [("{one_value}", ONE_VALUE), ("{gap_begins}", GAP_BEGINS), ("{gap_ends}", GAP_ENDS)];
    let put_in = |text: String, (name, expression): (&str, &str)| text.replace(name, expression);
    let mut text = whole.into_iter().fold(text.to_owned(), put_in);
    for (open, expression) in OF_COLUMN {
        while let Some((before, rest)) = text.split_once(open) {
            let (column, after) = rest.split_once('}').unwrap_or((rest, ""));
            text = format!("{before}{}{after}", expression.replace('$', column));
        }
    }
    text
}

/// The statements of a file: each ends with a semicolon at a line's end; comments have lines of
/// their own.
pub(super) fn statements(text: &str) -> impl Iterator<Item = String> {
    let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    let trimmed = |statement: &str| statement.trim().trim_end_matches(';').to_owned();
    let statements: Vec<String> = code.split_inclusive(";\n").map(trimmed).collect();
    statements.into_iter().filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_expressions_are_put_in_with_their_column() {
        let text = expand("SELECT {uuid:e.epoch} AS epoch, {time_of_s:h.a} AS t");
        assert!(text.contains("HEX(e.epoch)") && text.contains("INTERVAL h.a SECOND"), "{text}");
        assert!(!text.contains('{'), "{text}");
    }

    #[test]
    fn a_file_falls_into_its_statements_without_comments() {
        let text = "-- one; two\nCREATE a (\n  -- inner\n  b);\n\nINSERT c;\n";
        assert_eq!(statements(text).collect::<Vec<_>>(), ["CREATE a (\n  b)", "INSERT c"]);
    }
}
