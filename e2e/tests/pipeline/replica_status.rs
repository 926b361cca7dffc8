//! What an agent says of a replica with the privileges of docs/inputs.md and no others, on a real
//! one: running, broken off, and closed to it.

use std::fs;
use std::path::Path;
use std::process::Command;

use spillway_e2e::rig::until;
use spillway_testkit::mysql::MysqlServer;
use spillway_testkit::{binaries, errand};
use sqlx::MySqlPool;

const DOCS: &str = include_str!("../../../docs/inputs.md");
const PASSWORD: &str = "measuring";
/// Every channel's, while it runs.
const SAID: [&str; 4] = ["io_running", "lag_seconds", "relay_log_bytes", "sql_running"];

/// The page's own statements, for a user of this name from anywhere.
fn statements(user: &str) -> Vec<String> {
    let block = DOCS.split("```sql").nth(1).and_then(|rest| rest.split("```").next());
    let lines = block.expect("the page has a block").lines();
    let lines = lines.filter(|line| line.starts_with("CREATE USER") || line.starts_with("GRANT"));
    let account = format!("'{user}'@'%'");
    let own = |line: &str| line.replace("'spillway'@'localhost'", &account).replace('…', PASSWORD);
    lines.map(own).collect()
}

async fn run(server: &MySqlPool, statement: &str) {
    let done = sqlx::raw_sql(statement).execute(server).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// What `spillway-agent test` says of the server, to this user of it.
async fn told(dir: &Path, server: &MysqlServer, user: &str) -> String {
    let password = dir.join("measuring.password");
    fs::write(&password, PASSWORD).expect("a file");
    let config = dir.join("measuring.toml");
    let own = format!("[agent]\nenvironment = \"demo\"\ntoken_file = {password:?}\n");
    let text = format!(
        "{own}[[mysql]]\nname = \"replica\"\naddress = \"{}\"\nuser = \"{user}\"\n\
         password_file = {password:?}\nstatements = 0\n",
        server.port.socket()
    );
    fs::write(&config, text).expect("a file");
    let mut agent = Command::new(binaries::program("spillway-agent", false));
    agent.arg("test").arg("--config").arg(&config);
    let done = tokio::task::spawn_blocking(move || errand::output(&agent));
    let done = done.await.expect("it runs").expect("it runs");
    [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}

/// The value of a metric of replication, if it was told. The one channel that there is by default
/// has no name, and an empty label is none.
fn value(told: &str, name: &str) -> Option<String> {
    let name = format!("mysql.replication.{name}{{server=\"replica\"}}");
    let line = told.lines().find_map(|line| line.strip_prefix(&name))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// A replica that follows, one that does not, and one that may not be asked.
pub async fn judge(dir: &Path, primary: &MysqlServer, replica: &MysqlServer) {
    let (source, follower) = (primary.admin_pool(), replica.admin_pool());
    for statement in statements("measuring").iter().chain(&statements("blind")) {
        run(&source, statement).await;
    }
    run(&source, "REVOKE REPLICATION CLIENT ON *.* FROM 'blind'@'%'").await;
    until("the replica has the users", async || {
        let grants = "SELECT COUNT(*) FROM mysql.user WHERE user IN ('measuring', 'blind') AND \
                      Repl_client_priv = IF(user = 'blind', 'N', 'Y')";
        sqlx::query_scalar::<_, i64>(grants).fetch_one(&follower).await.is_ok_and(|all| all == 2)
    })
    .await;

    let said = told(dir, replica, "measuring").await;
    let values = SAID.map(|name| value(&said, name));
    assert!(values.iter().all(Option::is_some), "{said}");
    assert_eq!((values[0].as_deref(), values[3].as_deref()), (Some("1"), Some("1")), "{said}");
    assert!(!said.contains("closed to us"), "the documented privileges are enough: {said}");

    run(&follower, "STOP REPLICA IO_THREAD").await;
    let said = told(dir, replica, "measuring").await;
    assert_eq!(value(&said, "io_running").as_deref(), Some("0"), "{said}");
    assert_eq!(value(&said, "sql_running").as_deref(), Some("1"), "{said}");
    assert_eq!(value(&said, "lag_seconds"), None, "who does not hear, does not know: {said}");
    run(&follower, "START REPLICA IO_THREAD").await;

    let said = told(dir, replica, "blind").await;
    assert!(said.contains("GRANT REPLICATION CLIENT ON *.* TO blind"), "{said}");
    assert!(
        said.contains("mysql.status.questions") && !said.contains("mysql.replication"),
        "{said}"
    );
}
