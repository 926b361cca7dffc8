//! The agent's MySQL input on the same servers, MariaDB among them: what it says with the GRANTs of
//! docs/inputs.md and no other, and what it says without them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spillway_agent::clock::SystemClock;
use spillway_agent::collect::mysql::Server as Measured;
use spillway_agent::collect::paced::Surroundings;
use spillway_agent::collect::sample::Troubles;
use spillway_agent::collect::tray::Tray;
use spillway_agent::metrics::Metrics;
use spillway_agent::settings::MysqlInputSettings;
use spillway_runtime::mysql::Tls;
use spillway_runtime::settings::Dur;

use crate::server::Server;

const PASSWORD: &str = "Agent-input-1";

struct Input {
    measured: Measured,
    around: Surroundings,
    _password: tempfile::NamedTempFile,
}

impl Input {
    fn of(server: &Server, user: &str) -> Self {
        Self::with(server, user, |_| ())
    }

    fn with(server: &Server, user: &str, change: impl FnOnce(&mut MysqlInputSettings)) -> Self {
        let password = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(password.path(), PASSWORD).expect("it can be written");
        let mut settings = MysqlInputSettings {
            address: server.address(),
            user: user.to_owned(),
            password_file: Some(password.path().to_owned()),
            timeout: Dur::from(Duration::from_secs(10)),
            ..MysqlInputSettings::default()
        };
        change(&mut settings);
        let around = Surroundings {
            tray: Tray::new(1 << 20),
            clock: Arc::new(SystemClock),
            troubles: Troubles::default(),
            metrics: Metrics::for_tests(),
        };
        Self { measured: Measured::new(&settings), around, _password: password }
    }

    /// Values by metric, one of each; and what is wrong.
    async fn read(&mut self) -> (BTreeMap<String, f64>, Option<String>) {
        let pack = self.around.read_once(&mut self.measured, 1_000).await;
        let values = pack.readings().map(|(_, r)| (r.metric.into_owned(), r.value)).collect();
        (values, self.around.troubles.now().into_values().next())
    }

    /// Texts of the statements that were told.
    async fn statements(&mut self) -> BTreeSet<String> {
        let pack = self.around.read_once(&mut self.measured, 2_000).await;
        let labels = pack.readings().flat_map(|(_, reading)| reading.labels);
        labels.filter(|(name, _)| name == "statement").map(|(_, text)| text).collect()
    }
}

async fn user(server: &mut Server, user: &str) {
    server.run(&format!("DROP USER IF EXISTS '{user}'@'%'")).await;
    server.run(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}'")).await;
}

#[tokio::test]
async fn the_agent_measures_this_server_with_the_documented_grants_alone() {
    let mut server = Server::empty().await;
    let mariadb = server.is_mariadb().await;
    user(&mut server, "agent_input").await;
    let monitor = if mariadb { "REPLICA MONITOR" } else { "REPLICATION CLIENT" };
    server.run(&format!("GRANT PROCESS, {monitor} ON *.* TO 'agent_input'@'%'")).await;
    server.run("GRANT SELECT ON performance_schema.* TO 'agent_input'@'%'").await;
    let mut input = Input::of(&server, "agent_input");
    let (values, trouble) = input.read().await;
    assert_eq!(trouble, None);
    assert_eq!(values["mysql.up"], 1.0);
    for metric in [
        "mysql.status.questions",
        "mysql.status.threads_connected",
        "mysql.status.handler_read_key",
        "mysql.variables.max_connections",
        "mysql.variables.read_only",
        "mysql.innodb.lock_deadlocks",
    ] {
        assert!(values.contains_key(metric), "{metric} is missing in {values:?}");
    }
    // The first read only looks; what runs from here on is told, and by its form alone.
    server.run("SELECT 'geheim' = 'x' AS agent_input_probe").await;
    let statements = input.statements().await;
    let probe = statements.iter().find(|text| text.contains("agent_input_probe"));
    if !mariadb {
        let probe = probe.unwrap_or_else(|| panic!("it is not among {statements:?}"));
        assert!(probe.contains('?') && !probe.contains("geheim"), "no literals: {probe}");
    }
    server.run("DROP USER 'agent_input'@'%'").await;
}

#[tokio::test]
async fn without_the_grants_the_rest_is_said_and_what_is_missing_is_named() {
    let mut server = Server::empty().await;
    user(&mut server, "agent_poor").await;
    let mut input = Input::of(&server, "agent_poor");
    let (values, trouble) = input.read().await;
    assert_eq!(values["mysql.up"], 1.0);
    assert!(values.contains_key("mysql.status.questions"));
    let trouble = trouble.expect("it is told");
    assert!(trouble.contains("GRANT PROCESS ON *.* TO agent_poor"), "{trouble}");
    server.run("DROP USER 'agent_poor'@'%'").await;
    let (values, trouble) = Input::of(&server, "agent_poor").read().await;
    assert_eq!(values["mysql.up"], 0.0);
    assert!(trouble.expect("no login").contains("Access denied"));
    assert!(!values.contains_key("mysql.status.questions"));
}

#[tokio::test]
async fn a_server_is_measured_over_tls_and_over_its_socket_and_a_wrong_name_is_told() {
    let mut server = Server::empty().await;
    if server.is_mariadb().await {
        // It makes itself no certificates.
        return;
    }
    let data = server.text("SELECT @@datadir").await;
    let socket = server.text("SELECT @@socket").await;
    // Either may be relative to the server's own folder.
    let (ca, socket) = (Path::new(&data).join("ca.pem"), Path::new(&data).join(socket));
    user(&mut server, "agent_tls").await;
    server.run("ALTER USER 'agent_tls'@'%' REQUIRE SSL").await;
    let over = |tls: Tls, ca: &Path| {
        let ca = ca.to_owned();
        Input::with(&server, "agent_tls", move |settings| {
            (settings.tls, settings.ca_file) = (tls, Some(ca));
        })
    };
    let (values, trouble) = over(Tls::Required, &ca).read().await;
    assert_eq!(values["mysql.up"], 1.0, "{trouble:?}");
    // Its own certificate names no host. That `verify-ca` asks for the name as well is sqlx 0.8.6:
    // it does not know the error that rustls tells by now, and so is stricter than it says.
    for tls in [Tls::VerifyIdentity, Tls::VerifyCa] {
        let (values, trouble) = over(tls, &ca).read().await;
        assert_eq!(values["mysql.up"], 0.0, "{tls:?}");
        let trouble = trouble.expect("it is told");
        assert!(trouble.contains("not valid for name"), "{tls:?}: {trouble}");
    }
    let (values, trouble) = over(Tls::Disabled, &ca).read().await;
    assert_eq!(values["mysql.up"], 0.0, "it asks for TLS");
    assert!(trouble.is_some());
    server.run("ALTER USER 'agent_tls'@'%' REQUIRE NONE").await;
    let mut local = Input::with(&server, "agent_tls", |settings| {
        settings.address = "127.0.0.1:1".to_owned();
        settings.socket = Some(socket);
    });
    let (values, trouble) = local.read().await;
    assert_eq!(values["mysql.up"], 1.0, "{trouble:?}");
    server.run("DROP USER 'agent_tls'@'%'").await;
}
