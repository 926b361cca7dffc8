//! `spillway drill NAME`: safe exercises on the running system, for a quiet afternoon. They send
//! what any sender may send, follow it home, and show each hop; nothing is stopped or broken here.

use spillway_runtime::program::chain;
use spillway_runtime::shards::ShardMap;

use super::check::canary::{self, Canary};
use super::check::preflight::{self, CanaryToken};
use super::trace;
use crate::answer::{Answer, Verdict, duration};
use crate::cli::Drill;
use crate::consent::{Consent, Plan};
use crate::desk::Desk;
use crate::failure::{Failure, UsageError};
use crate::reach::mysql::Server;

const DRILLS: [(&str, &str); 2] = [
    ("s3-canary", "park a batch in S3 as an agent does, and follow it through the worker to MySQL"),
    ("http-canary", "send a batch through the API, and follow it through Kafka to MySQL"),
];

pub async fn run(desk: &Desk, options: &Drill) -> Result<Answer, Failure> {
    match options.name.as_str() {
        "ls" => Ok(ls()),
        "s3-canary" => follow(desk, options, "s3-canary").await,
        "http-canary" => follow(desk, options, "http-canary").await,
        other => {
            let text = format!("there is no drill {other:?}; `spillway drill ls` lists them");
            Err(UsageError(text).into())
        }
    }
}

fn ls() -> Answer {
    let mut answer = Answer::default();
    let section = answer.section("drills", &["drill", "what"]);
    for (name, what) in DRILLS {
        section.row([name.into(), what.into()]);
    }
    answer
}

async fn follow(desk: &Desk, options: &Drill, name: &'static str) -> Result<Answer, Failure> {
    let (token, _) = preflight::token(desk).await?;
    let map = desk.shards()?;
    let what = DRILLS.iter().find(|(drill, _)| *drill == name).map_or(name, |(_, what)| what);
    let steps = vec![format!("{what}; environment {}, host {}", token.environment, canary::HOST)];
    let mut answer = Answer::default();
    let entry = match desk.ask(&Plan { action: "drill", steps })? {
        Consent::Nothing(why) => {
            answer.note(why);
            return Ok(answer);
        }
        Consent::Given(entry) => entry,
    };
    let done = exercise(desk, &map, &token, options, name).await;
    let (mut answer, sentence) = entry.end(done)?;
    answer.fact("drill", name);
    note(desk, &map, &token, &sentence, &mut answer).await;
    Ok(answer)
}

async fn exercise(
    desk: &Desk,
    map: &ShardMap,
    token: &CanaryToken,
    options: &Drill,
    name: &str,
) -> Result<(Answer, String), Failure> {
    let (sent, key): (Canary, _) = match name {
        "s3-canary" => {
            let ((sent, key), detail) = canary::over_s3(desk, token).await?;
            eprintln!("  {detail}");
            (sent, Some(key))
        }
        _ => {
            let (sent, detail) = canary::over_http(desk, token).await?;
            eprintln!("  {detail}");
            (sent, None)
        }
    };
    let within = options.within.get();
    let took = canary::arrived(desk, map, token, &sent, within).await?;
    let mut answer = trace::run(desk, &sent.id.to_string(), None).await?;
    let sentence = match took {
        Some(took) => {
            let took_s = took.as_secs_f64();
            answer.fact("home_after_s", took_s);
            format!("drill {name}: home after {}", duration(took_s))
        }
        None => {
            let waited = duration(within.as_secs_f64());
            answer.worsen(Verdict::Critical);
            if let Some(key) = key {
                answer.note(canary::stuck_in_s3(desk, key, within).await?.to_string());
            }
            format!("drill {name}: not home after {waited}")
        }
    };
    answer.note(sentence.clone());
    Ok((answer, sentence))
}

/// Also in `events`, so that a dashboard's reader sees that it was a drill.
async fn note(
    desk: &Desk,
    map: &ShardMap,
    token: &CanaryToken,
    sentence: &str,
    answer: &mut Answer,
) {
    let Some(shard) = map.shard_of_environment(&token.environment) else { return };
    let now = jiff::Timestamp::now().as_millisecond();
    let noted = async {
        let mut server = Server::connect(&desk.settings, shard).await?;
        server
            .ask(async |conn| {
                let sql = "INSERT INTO spillway_store.events
                           (time_at, environment, host, kind, text, tags)
                           VALUES (?, ?, ?, 'drill', ?, 'operator')";
                let query = sqlx::query(sql).bind(now).bind(&token.environment);
                let query = query.bind(canary::HOST).bind(sentence);
                query.execute(conn).await.map(drop)
            })
            .await
    };
    if let Err(fault) = noted.await {
        answer.trouble(Verdict::Warning, format!("not in events: {}", chain(&fault)));
    }
}
