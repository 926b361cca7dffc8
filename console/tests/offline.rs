//! What the console promises without any server: tokens, keys, consent, exit codes, incidents; the
//! pages in a real browser; alerts, their runbooks and promtool's unit tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say where"
)]

mod alerts;
mod browser;
mod scenes;
mod site;

use std::os::unix::fs::PermissionsExt;

use site::Site;
use spillway_runtime::tokens::Tokens;

const SHARDS: &str = "partitions = 64\ngroup = 4\n\
    [[shard]]\nname = \"s0\"\nprimary = \"mysql://root:hunter2@db-0:3306\"\ngroups = \"0-7\"\n\
    [[shard]]\nname = \"s1\"\nprimary = \"mysql://db-1:3306\"\ngroups = \"8-15\"\n";

fn offline() -> Site {
    Site::new(SHARDS, "")
}

#[test]
fn a_token_is_shown_once_works_and_can_be_revoked() {
    let site = offline();
    let made = site.ok("token create --environment acme --expires-in 90d --yes");
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let block = made["agent_toml"].as_str().unwrap();
    assert!(block.contains("token_file = \"/etc/spillway/agent.token\"") && !block.contains(token));
    let secret = token.rsplit('_').next().unwrap();
    assert!(
        !site.read("tokens.toml").contains(secret) && !site.read("journal.jsonl").contains(secret)
    );
    let now = jiff::Timestamp::now();
    let tokens = Tokens::load(&site.path("tokens.toml")).unwrap();
    assert_eq!(tokens.authenticate(token, now).unwrap().environment, "acme");
    site.ok(&format!("token revoke {id} --yes"));
    let tokens = Tokens::load(&site.path("tokens.toml")).unwrap();
    assert!(tokens.authenticate(token, jiff::Timestamp::now()).is_err());
    assert_eq!(site.ok("token ls")["tokens"][0]["state"], "revoked");
}

#[test]
fn the_private_key_is_its_owners_alone_and_the_public_one_goes_into_agent_toml() {
    let site = offline();
    let made = site.ok("keys create --yes");
    let file = made["private_key_file"].as_str().unwrap();
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key_id = made["key_id"].as_str().unwrap();
    assert!(file.ends_with(&format!("{key_id}.key")));
    let private = std::fs::read_to_string(file).unwrap();
    assert!(!made.to_string().contains(private.trim()));
    let token = site.ok("token create --environment acme --yes");
    let block = token["agent_toml"].as_str().unwrap();
    assert!(block.contains(made["public_key"].as_str().unwrap()) && block.contains(key_id));
    assert_eq!(site.ok("keys ls")["keys"][0]["key_id"], key_id);
}

#[test]
fn nothing_is_changed_unasked_and_a_dry_run_only_plans() {
    let site = offline();
    let sentence = site.refused("token create --environment acme", 64);
    assert!(sentence.contains("pass --yes"), "{sentence}");
    let planned = site.run("token create --environment acme --dry-run --yes");
    assert!(planned.code == 0 && planned.errors.contains("add token"), "{planned:?}");
    assert_eq!((site.read("tokens.toml"), site.read("journal.jsonl")), Default::default());
}

#[test]
fn every_change_stands_in_the_journal_with_how_it_ended() {
    let site = offline();
    site.ok("token create --environment acme --yes");
    let journal = site.read("journal.jsonl");
    let states: Vec<String> = journal
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].to_string())
        .collect();
    assert_eq!(states, ["\"begins\"", "\"done\""]);
}

#[test]
fn where_an_environment_lives_is_known_while_everything_is_down() {
    let site = offline();
    let found = site.ok("where acme");
    assert_eq!((&found["shard"], &found["group"]), (&"s0".into(), &1.into()));
    assert_eq!(found["partitions"], serde_json::json!([4, 5, 6, 7]));
    assert_eq!(found["primary"], "mysql://db-0:3306/spillway", "no login in it");
}

#[test]
fn an_environment_is_paused_and_admitted_in_the_file_that_the_api_reads() {
    let site = offline();
    let settings = site.ok("config show");
    assert!(settings["admission_file"].as_str().unwrap().ends_with("admission.toml"));
    assert_eq!(site.ok("ingest show")["share"], 1.0);
    site.ok("token create --environment acme --yes");
    assert!(site.refused("ingest pause amce --yes", 64).contains("it has acme"));
    site.ok("ingest pause acme --yes");
    site.ok("ingest admit --share 0.25 --yes");
    let file: toml::Table = site.read("admission.toml").parse().unwrap();
    assert_eq!((&file["share"], &file["paused"][0]), (&0.25.into(), &"acme".into()));
    let shown = site.run("ingest show");
    assert_eq!((shown.code, &shown.json["paused"][0]), (1, &"acme".into()), "{shown:?}");
    assert_eq!(site.ok("ingest admit --all --yes")["paused"], serde_json::json!([]));
    assert_eq!(site.refused("ingest admit --share 2 --yes", 64).lines().count(), 1);
    assert!(site.refused("ingest pause acme", 64).contains("pass --yes"));
}

#[test]
fn the_maintenance_lock_has_a_reason_and_an_owner_and_only_one() {
    let site = offline();
    let hasty = [("SPILLWAY__MYSQL__CONNECT_TIMEOUT", "50ms")];
    let run = |command: &str| site.run_with(command, &hasty);
    assert_eq!(run("maintenance show").json["held"], false);
    let begun = run("maintenance begin --reason kernels --for 1h --yes");
    assert_eq!((&begun.json["held"], &begun.json["reason"]), (&true.into(), &"kernels".into()));
    assert_eq!((begun.code, &begun.json["servers"]), (1, &0.into()), "no server was told of it");
    assert!(run("maintenance begin --reason mine --yes").errors.contains("kernels"));
    let wrong = run("maintenance begin --reason mine --take-over-from nobody --yes");
    assert!(wrong.errors.contains("who holds the lock"), "{wrong:?}");
    assert_eq!(run("maintenance begin --reason x --for 25h --yes").code, 64);
    assert_eq!(run("maintenance end --yes").json["held"], false);
    assert!(run("maintenance end --yes").errors.contains("nobody holds"));
}

#[test]
fn shells_complete_commands_without_any_settings() {
    let site = offline();
    for shell in ["bash", "zsh", "fish"] {
        let ran = site.run_with(&format!("completions {shell}"), &[]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(site.ok("drill ls")["drills"][0]["drill"], "s3-canary");
    assert!(site.refused("drill nonsense", 64).contains("spillway drill ls"));
}

#[test]
fn wrong_command_lines_exit_64_and_wrong_settings_78() {
    let site = offline();
    for command in ["", "frobnicate", "reader create", "reader create --all --environment x"] {
        assert_eq!(site.run(command).code, 64, "{command}");
    }
    assert!(site.refused("token revoke nobody", 2).contains("cannot be read"));
    assert!(site.refused("where a'b", 64).contains("can't be an environment's name"));
    let wrong = site.run_with("lag", &[("SPILLWAY__KAFKA__BROKRS", "a:1")]);
    assert!(wrong.code == 78 && wrong.errors.contains("did you mean `brokers`?"), "{wrong:?}");
    std::fs::write(site.path("shards.toml"), SHARDS.replace("8-15", "8-14")).unwrap();
    assert!(site.refused("where acme", 78).contains("group 15 has no shard"));
}

#[test]
fn unreachable_servers_are_told_in_one_sentence_that_says_what_to_do() {
    let site = Site::new(SHARDS, "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n");
    let hasty = [("SPILLWAY__REMOTE_DEADLINE", "1s")];
    let waited = site.run_with("topics create --wait 5s --yes", &hasty);
    assert!(waited.code == 2 && waited.errors.contains("waiting for it"), "{waited:?}");
    let sentence = site.refused("topics create --wait 0s --yes", 2);
    assert!(sentence.contains("is it up, and is kafka.brokers right?"), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    let sentence = site.refused("spill ls", 64);
    assert!(sentence.contains("[s3] access_key"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_tell_delayed_from_lost_on_every_screen_and_the_public_one_names_no_customer() {
    scenes::look_at_everything().await;
}

#[test]
fn what_everybody_may_fetch_names_no_customer_host_or_program() {
    scenes::nothing_public_names_anybody();
}

#[test]
fn an_incident_is_opened_updated_and_closed_and_stays_in_the_file() {
    let site = offline();
    let opened = site.invoke(
        &[
            "incident",
            "open",
            "Kafka is slow",
            "--text",
            "Data is delayed, <b>not lost</b>.",
            "--impact",
            "major",
            "--component",
            "log",
            "--public",
            "--yes",
        ],
        &[],
    );
    assert_eq!(opened.code, 0, "{opened:?}");
    let id = opened.json["id"].as_str().unwrap().to_owned();
    let update = ["incident", "update", &id, "--text", "A broker was slow.", "--yes"];
    assert_eq!(site.invoke(&update, &[]).json["phase"], "Identified");
    let close = ["incident", "close", &id, "--text", "All data is here.", "--yes"];
    assert_eq!(site.invoke(&close, &[]).code, 0);
    assert!(site.invoke(&close, &[]).errors.contains("is closed"));
    assert_eq!(site.ok("incident ls")["incidents"][0]["phase"], "Resolved");
    assert_eq!(site.read("incidents.jsonl").lines().count(), 3);
    let unknown = ["incident", "open", "x", "--text", "y", "--component", "moon", "--yes"];
    let unknown = site.invoke(&unknown, &[]);
    assert!(unknown.code == 64 && unknown.errors.contains("known are intake"), "{unknown:?}");
}
