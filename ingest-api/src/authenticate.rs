//! Who sends: a token, judged against tokens.toml. The environment comes from the token and from
//! nowhere else.
//!
//! Our own routes take `Authorization: Bearer` (or `Token`). Foreign clients that can't send that
//! may use Basic, with the token as password, or `DD-API-KEY`. Never a URL: those are logged.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use spillway_runtime::tokens::{TokenError, TokenFile, TokenLimits, Tokens, Unavailable};

use crate::quota;

/// Where Datadog's clients put their key.
const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");
/// A Basic credential, encoded: a user of some length, and a token.
const BASIC_BYTES_MAX: usize = 1_024;

/// The sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub environment: Arc<str>,
    /// The token's id: its name, not its secret.
    pub token: Arc<str>,
    /// What the token may send at most, if anything is said of it.
    pub limits: Option<TokenLimits>,
}

/// Why a request has no sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no usable tokens file: no one's fault but the server's, so never a 401.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("no credential: send `Authorization: Bearer spw_<id>_<secret>`")]
    Absent,
    #[error("there is more than one credential")]
    Ambiguous,
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The sender that the request's head names and proves.
///
/// # Errors
/// [`Denied`].
pub fn caller(tokens: &TokenFile, head: &HeaderMap, now: Timestamp) -> Result<Caller, Denied> {
    // Without a usable file no one is judged, also not for what they failed to send.
    let tokens = tokens.current()?;
    proven(&tokens, bearer(head)?, now)
}

/// The sender that a foreign client's head names and proves, in whichever way it can.
///
/// # Errors
/// [`Denied`].
pub fn anyone(tokens: &TokenFile, head: &HeaderMap, now: Timestamp) -> Result<Caller, Denied> {
    let tokens = tokens.current()?;
    proven(&tokens, &credential(head)?, now)
}

fn proven(tokens: &Tokens, credential: &str, now: Timestamp) -> Result<Caller, Denied> {
    let token = tokens.authenticate(credential, now)?;
    Ok(Caller {
        environment: Arc::from(token.environment.as_str()),
        token: Arc::from(token.id.as_str()),
        limits: quota::limits_of(token.limits),
    })
}

fn credential(head: &HeaderMap) -> Result<String, Denied> {
    let mut keys = head.get_all(API_KEY).iter();
    if let Some(key) = keys.next() {
        if keys.next().is_some() || head.contains_key(AUTHORIZATION) {
            return Err(Denied::Ambiguous);
        }
        return Ok(key.to_str().map_err(|_| TokenError::Malformed)?.trim().to_owned());
    }
    match bearer(head) {
        Err(Denied::Absent) => basic(head).ok_or(Denied::Absent),
        bearer => bearer.map(str::to_owned),
    }
}

/// The password of `Authorization: Basic`; any user.
fn basic(head: &HeaderMap) -> Option<String> {
    let (scheme, encoded) = head.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > BASIC_BYTES_MAX {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

fn bearer(head: &HeaderMap) -> Result<&str, Denied> {
    let mut values = head.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denied::Absent)?;
    if values.next().is_some() {
        return Err(Denied::Ambiguous);
    }
    let text = value.to_str().map_err(|_| TokenError::Malformed)?;
    let (scheme, credential) = text.trim().split_once(' ').ok_or(Denied::Absent)?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    if known { Ok(credential.trim()) } else { Err(Denied::Absent) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_str(value).unwrap());
        values.map(|value| (AUTHORIZATION, value)).collect()
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for value in ["Bearer spw_a_b", "bearer  spw_a_b ", "Token spw_a_b"] {
            assert_eq!(bearer(&head(&[value])), Ok("spw_a_b"), "{value}");
        }
    }

    #[test]
    fn anything_else_is_no_credential() {
        assert_eq!(bearer(&HeaderMap::new()), Err(Denied::Absent));
        for value in ["", "Bearer", "Basic eDp5", "spw_a_b"] {
            assert_eq!(bearer(&head(&[value])), Err(Denied::Absent), "{value}");
        }
        assert_eq!(bearer(&head(&["Bearer a", "Bearer b"])), Err(Denied::Ambiguous));
    }

    #[test]
    fn foreign_clients_may_say_basic_or_send_a_key_but_not_two_things() {
        for value in ["Basic eDpzcHdfYV9i", "basic OnNwd19hX2I=", "Token spw_a_b"] {
            assert_eq!(credential(&head(&[value])).as_deref(), Ok("spw_a_b"), "{value}");
        }
        let mut keyed = HeaderMap::new();
        keyed.insert(API_KEY, HeaderValue::from_static("spw_a_b"));
        assert_eq!(credential(&keyed).as_deref(), Ok("spw_a_b"));
        keyed.insert(AUTHORIZATION, HeaderValue::from_static("Bearer spw_a_b"));
        assert_eq!(credential(&keyed), Err(Denied::Ambiguous));
        for value in ["Basic", "Basic !", "Basic eHg="] {
            assert_eq!(credential(&head(&[value])), Err(Denied::Absent), "{value}");
        }
    }
}
