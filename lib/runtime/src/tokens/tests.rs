//! What a tokens file promises: nobody is let in wrongly, and nobody is shut out by a bad file.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const CREATED: &str = "2026-01-01T00:00:00Z";

fn made(environment: &str) -> (String, Token) {
    let (secret, row) = generate(None, environment, at(CREATED)).unwrap();
    (secret.reveal().to_owned(), row)
}

fn tokens(rows: Vec<Token>) -> Tokens {
    Tokens::from_rows(rows).unwrap()
}

#[test]
fn a_token_opens_its_own_environment() {
    let ((acme, acme_row), (demo, demo_row)) = (made("acme"), made("demo"));
    let tokens = tokens(vec![acme_row, demo_row]);
    let now = at("2026-06-01T00:00:00Z");
    assert_eq!(tokens.authenticate(&acme, now).unwrap().environment, "acme");
    assert_eq!(tokens.authenticate(&demo, now).unwrap().environment, "demo");
}

#[test]
fn a_wrong_secret_and_an_unknown_id_are_told_apart() {
    let (good, row) = made("acme");
    let tokens = tokens(vec![row.clone()]);
    let now = at("2026-06-01T00:00:00Z");
    let wrong = format!("spw_{}_{}", row.id, "0".repeat(64));
    assert_eq!(tokens.authenticate(&wrong, now), Err(TokenError::WrongSecret));
    let truncated = good.get(..good.len() - 1).unwrap();
    assert_eq!(tokens.authenticate(truncated, now), Err(TokenError::WrongSecret));
    assert_eq!(tokens.authenticate("spw_nobody_x", now), Err(TokenError::Unknown));
}

#[test]
fn malformed_credentials_are_malformed_whatever_they_hold() {
    let tokens = tokens(vec![made("acme").1]);
    let long = format!("spw_a_{}", "x".repeat(TOKEN_BYTES_MAX));
    for text in ["", "spw_", "spw_a", "spw_a_", "spw__x", "xyz_a_b", "spw_A_b", "spw_a_\n", &long] {
        let error = tokens.authenticate(text, at(CREATED));
        assert_eq!(error, Err(TokenError::Malformed), "{text:?}");
    }
}

#[test]
fn expiry_and_revocation_are_judged_at_the_given_time() {
    let (credential, mut row) = made("acme");
    row.expires = Some(at("2026-03-01T00:00:00Z"));
    row.revoked = Some(at("2026-02-01T00:00:00Z"));
    let tokens = tokens(vec![row]);
    let judge = |time: &str| tokens.authenticate(&credential, at(time)).map(|_| ());
    assert_eq!(judge("2025-12-31T00:00:00Z"), Err(TokenError::NotYetValid));
    assert_eq!(judge("2025-12-31T23:56:00Z"), Ok(()), "clocks may differ a little");
    assert_eq!(judge("2026-01-31T23:59:59Z"), Ok(()));
    assert_eq!(judge("2026-02-01T00:00:00Z"), Err(TokenError::Revoked));
    assert_eq!(judge("2026-03-02T00:00:00Z"), Err(TokenError::Revoked));
}

#[test]
fn an_expired_token_is_expired_from_that_very_moment() {
    let (credential, mut row) = made("acme");
    row.expires = Some(at("2026-03-01T00:00:00Z"));
    let tokens = tokens(vec![row]);
    let judge = |time: &str| tokens.authenticate(&credential, at(time)).map(|_| ());
    assert_eq!(judge("2026-02-28T23:59:59Z"), Ok(()));
    assert_eq!(judge("2026-03-01T00:00:00Z"), Err(TokenError::Expired));
}

#[test]
fn an_unsound_file_is_refused_with_the_row_and_the_fault() {
    let (_, good) = made("acme");
    let with = |change: fn(&mut Token)| {
        let mut row = good.clone();
        change(&mut row);
        Tokens::from_rows(vec![row]).unwrap_err().to_string()
    };
    assert!(with(|row| row.secret_sha256 = "abc".to_owned()).contains("64 hexadecimal"));
    assert!(with(|row| row.environment = "A b".to_owned()).contains("environment"));
    assert!(with(|row| row.id = "a_b".to_owned()).contains("the id must be"));
    assert!(with(|row| row.expires = Some(row.created)).contains("expires before"));
    let twice = Tokens::from_rows(vec![good.clone(), good]).unwrap_err();
    assert!(twice.to_string().contains("twice"));
    assert!(matches!(Tokens::parse(""), Err(TokensError::Empty)));
    assert!(matches!(Tokens::parse("[[token]]\nid = 1"), Err(TokensError::NotToml(_))));
}

#[test]
fn the_file_holds_no_secret_and_comes_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    let (secret, mut row) = made("acme");
    row.limits = Some(TokenLimits { points_per_second: Some(5), ..TokenLimits::default() });
    append(&path, row.clone()).unwrap();
    append(&path, made("demo").1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let own_part = secret.rsplit('_').next().unwrap();
    assert!(!text.contains(own_part));
    let tokens = Tokens::load(&path).unwrap();
    assert_eq!(tokens.iter().count(), 2);
    assert_eq!(tokens.authenticate(&secret, at(CREATED)).unwrap(), &row);
}

#[test]
fn a_damaged_file_is_never_overwritten_by_adding_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    std::fs::write(&path, "[[token]\n").unwrap();
    assert!(append(&path, made("acme").1).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[[token]\n");
}

#[tokio::test(start_paused = true)]
async fn a_bad_new_file_keeps_the_tokens_in_force_and_none_at_all_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    let (reload, receiver) = watch::channel(0);
    let file = TokenFile::watch(&path, receiver);
    let unavailable = file.current().unwrap_err().to_string();
    assert!(unavailable.contains("no good tokens file yet: cannot be read"), "{unavailable}");
    let (credential, row) = made("acme");
    append(&path, row).unwrap();
    while file.current().is_err() {
        tokio::time::sleep(watched_file::LOOK_EVERY).await;
    }
    for bad in ["", "[[token]]\nid = \"x\"", "garbage"] {
        std::fs::write(&path, bad).unwrap();
        reload.send_modify(|n| *n += 1);
        tokio::time::sleep(2 * watched_file::LOOK_EVERY).await;
        let tokens = file.current().unwrap();
        assert!(tokens.authenticate(&credential, at(CREATED)).is_ok());
        assert!(file.last_error().is_some(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_text_but_the_token_itself_is_accepted(text in ".{0,80}") {
        let (credential, row) = made("acme");
        let tokens = tokens(vec![row.clone()]);
        prop_assert!(tokens.authenticate(&text, at(CREATED)).is_err());
        let own_id = format!("spw_{}_{text}", row.id);
        let expected = own_id == credential;
        prop_assert_eq!(tokens.authenticate(&own_id, at(CREATED)).is_ok(), expected);
    }
}
