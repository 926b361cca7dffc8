//! Customers' names as parts of a path (RFC 3986, section 2.1), there and back.

use std::fmt::Write;

/// Everything but unreserved characters becomes `%XX`.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte.into()),
            // A dot alone would be a step in the path, so dots are written out.
            other => write!(out, "%{other:02X}").unwrap_or_default(),
        }
    }
    out
}

/// `None` if it is no UTF-8 or a `%` is not followed by two digits.
pub fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            bytes.extend(hex::decode(digits).ok()?);
            rest = behind;
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of `key` in a query like `range=3600&metric=cpu.usage`.
pub fn query_value(query: &str, key: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    decode(&value.replace('+', "%20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_comes_back_and_none_is_a_step_in_the_path() {
        for name in ["web-1", "..", "a/b?c#d", "<script>", "zürich 100%", ""] {
            let encoded = encode(name);
            assert!(!encoded.contains(['/', '.', '<', '?', '#', ' ']), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(name));
        }
        assert_eq!((decode("%f"), decode("%zz"), decode("%ff")), (None, None, None));
        assert_eq!(query_value("range=60&metric=a%2Eb+c", "metric").as_deref(), Some("a.b c"));
    }
}
