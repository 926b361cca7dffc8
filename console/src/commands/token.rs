//! `spillway token create|revoke|ls`: rows of tokens.toml. Programs notice within a second.

use jiff::{SignedDuration, Timestamp};
use spillway_runtime::settings::Dur;
use spillway_runtime::tokens::{self, Token, TokenLimits, Tokens};

use super::keys;
use crate::answer::Answer;
use crate::cli::CreateToken;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};

/// Makes a token. Its secret exists nowhere but in this answer.
pub fn create(desk: &Desk, options: &CreateToken) -> Result<Answer, Failure> {
    let now = Timestamp::now();
    let made = tokens::generate(options.id.as_deref(), &options.environment, now);
    let (secret, mut row) = made.map_err(|error| UsageError(error.to_string()))?;
    row.expires = options.expires_in.map(|life| after(row.created, life)).transpose()?;
    let limits = TokenLimits {
        points_per_second: options.points_per_second,
        requests_per_second: options.requests_per_second,
        bytes_per_second: options.bytes_per_second,
        series_per_hour: options.series_per_hour,
        connections: options.connections,
    };
    row.limits = (limits != TokenLimits::default()).then_some(limits);

    let path = &desk.settings.tokens_file;
    let life = row.expires.map_or("for ever".to_owned(), |at| format!("until {at}"));
    let step = format!(
        "add token {} for environment {}, good {life}, to {}",
        row.id,
        row.environment,
        path.display()
    );
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "token create", steps: vec![step] })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    entry.end(tokens::append(path, row.clone()))?;
    let block = agent_toml(desk, &row);
    answer
        .fact("id", row.id)
        .fact("environment", row.environment)
        .fact("token", secret.reveal())
        .fact("agent_toml", block)
        .note(format!(
            "The token is shown this once; tokens.toml holds only its SHA-256. On the agent's host \
             it goes into {TOKEN_FILE} (root, 0600)."
        ));
    Ok(answer)
}

fn after(start: Timestamp, life: Dur) -> Result<Timestamp, UsageError> {
    let life = SignedDuration::try_from(life.get()).ok();
    let end = life.and_then(|life| start.checked_add(life).ok());
    end.ok_or_else(|| UsageError("--expires-in is too long to be a date".to_owned()))
}

/// Where the agent's unit takes its token from (deploy/systemd).
const TOKEN_FILE: &str = "/etc/spillway/agent.token";

/// What to copy into agent.toml, which everybody on that host may read: the token is not in it.
fn agent_toml(desk: &Desk, row: &Token) -> String {
    let endpoints = &desk.settings.api.endpoints;
    let mut block = format!(
        "[agent]\nenvironment = {:?}\ntoken_file = {TOKEN_FILE:?}\n\n\
         [deliver]\nendpoints = {endpoints:?}",
        row.environment
    );
    if let Ok(Some(key)) = keys::newest(&desk.settings.keys_dir) {
        block.push_str("\n\n");
        block.push_str(&keys::agent_toml(desk, &key));
    }
    block
}

/// Marks a token as revoked from now on.
pub fn revoke(desk: &Desk, id: &str) -> Result<Answer, Failure> {
    let path = &desk.settings.tokens_file;
    let mut rows: Vec<Token> = Tokens::load(path)?.iter().cloned().collect();
    let known: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let Some(row) = rows.iter_mut().find(|row| row.id == id) else {
        let known = known.join(", ");
        return Err(UsageError(format!("there is no token {id}; there are: {known}")).into());
    };
    let mut answer = Answer::default();
    if let Some(at) = row.revoked {
        answer.note(format!("token {id} is revoked since {at}"));
        return Ok(answer);
    }
    let now = Timestamp::now();
    row.revoked = Some(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let environment = row.environment.clone();
    let step = format!("revoke token {id} of environment {environment}, from now on");
    match desk.ask(&Plan { action: "token revoke", steps: vec![step] })? {
        Consent::Nothing(why) => answer.note(why),
        Consent::Given(entry) => {
            entry.end(tokens::rewrite(path, rows))?;
            answer.fact("revoked", id).note(
                "What this token parked in S3 before now is still accepted; its row must stay \
                 until that is drained.",
            )
        }
    };
    Ok(answer)
}

/// All tokens, without secrets.
pub fn ls(desk: &Desk) -> Result<Answer, Failure> {
    let tokens = Tokens::load(&desk.settings.tokens_file)?;
    let now = Timestamp::now();
    let mut answer = Answer::default();
    let columns = ["id", "environment", "state", "created", "expires", "revoked"];
    let section = answer.section("tokens", &columns);
    for token in tokens.iter() {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string()).into();
        section.row([
            token.id.clone().into(),
            token.environment.clone().into(),
            state(token, now).into(),
            time(Some(token.created)),
            time(token.expires),
            time(token.revoked),
        ]);
    }
    Ok(answer)
}

fn state(token: &Token, now: Timestamp) -> &'static str {
    if token.revoked.is_some_and(|at| at <= now) {
        "revoked"
    } else if token.expires.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "good"
    }
}
