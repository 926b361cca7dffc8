//! Who sends: a bearer token, judged against tokens.toml. The environment comes from the token
//! and from nowhere else.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use spillway_runtime::tokens::{TokenError, TokenFile, Unavailable};

/// The sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub environment: Arc<str>,
}

/// Why a request has no sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no usable tokens file: no one's fault but the server's, so never a 401.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("no credential: send `Authorization: Bearer spw_<id>_<secret>`")]
    Absent,
    #[error("the Authorization header is there more than once")]
    Ambiguous,
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The sender that the request's head names and proves.
///
/// # Errors
/// [`Denied`].
pub fn caller(tokens: &TokenFile, head: &HeaderMap, now: Timestamp) -> Result<Caller, Denied> {
    let tokens = tokens.current()?;
    let bearer = bearer(head)?;
    let token = tokens.authenticate(bearer, now)?;
    Ok(Caller { environment: Arc::from(token.environment.as_str()) })
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
}
