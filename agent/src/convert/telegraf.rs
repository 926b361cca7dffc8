//! A telegraf.conf: its inputs become ours, by the table below.

use super::tree::{Node, Table, from_toml};
use super::{ConvertError, Converted};

/// Inputs that every agent of ours reads anyway, with the keys that change nothing.
const HOST: [&str; 8] = ["cpu", "disk", "diskio", "kernel", "mem", "net", "processes", "swap"];
const HOST_NAMES: &str = "is read anyway, under our own names (docs/inputs.md)";
const OUR_OWN: &str = "the agent sends to ingest-api alone: deliver.endpoints";
const REWRITING: &str = "rewrites what was measured, which the agent does not";
const SECRET: &str = "a password does not stand in settings: put it into the file named there";

pub fn convert(text: &str) -> Result<Converted, ConvertError> {
    let mut file = from_toml(text)?;
    let mut out = Converted::default();
    let mut agent = file.table("agent").unwrap_or_default();
    let interval = agent.text("interval");
    if let Some(interval) = &interval {
        out.set("collect", "interval", interval.clone());
    }
    if let Some(host) = agent.text("hostname").filter(|host| !host.is_empty()) {
        out.set("agent", "host", host);
    }
    out.leave_out_rest(agent, "agent");
    if let Some(tags) = file.take("global_tags") {
        let line = tags.line;
        let labels = texts(tags.table().unwrap_or_default());
        if !labels.is_empty() {
            out.set("agent", "labels", labels);
            let why = "became agent.labels: labels of the host, not of each series";
            out.leave_out(line, "global_tags", why);
        }
    }
    let inputs = file.table("inputs").unwrap_or_default();
    for (name, _, instances) in inputs.entries() {
        for instance in instances.list() {
            let line = instance.line;
            let mut table = instance.table().unwrap_or_default();
            let own = table.text("interval").or_else(|| interval.clone());
            let from = Input { name: &name, line, interval: own };
            from.convert(table, &mut out);
        }
    }
    for (kind, line, plugins) in file.entries() {
        let why = match kind.as_str() {
            "outputs" => OUR_OWN,
            "processors" | "aggregators" => REWRITING,
            _ => "has no counterpart here",
        };
        match plugins.table() {
            Some(plugins) => {
                for (name, line) in plugins.rest() {
                    out.leave_out(line, format!("{kind}.{name}"), why);
                }
            }
            None => out.leave_out(line, kind, why),
        }
    }
    Ok(out)
}

struct Input<'a> {
    name: &'a str,
    line: usize,
    interval: Option<String>,
}

impl Input<'_> {
    fn convert(self, mut from: Table, out: &mut Converted) {
        let of = format!("inputs.{}", self.name);
        match self.name {
            "prometheus" => self.prometheus(&mut from, out),
            "mysql" => self.mysql(&mut from, out),
            "exec" => self.exec(&mut from, out),
            "statsd" => self.statsd(&mut from, out),
            "influxdb_listener" | "influxdb_v2_listener" | "http_listener" => {
                out.set("influx", "enabled", true);
                self.listen("influx", "listen", &mut from, out);
            }
            "system" => out.leave_out(self.line, of.clone(), HOST_NAMES),
            name if HOST.contains(&name) => self.host(&mut from, out),
            _ => {
                out.leave_out(self.line, of, "the agent has no such input");
                return;
            }
        }
        out.leave_out_rest(from, &of);
    }

    /// The start of a section: its pace.
    fn section(&self, timeout: Option<String>) -> toml::Table {
        let mut to = toml::Table::new();
        if let Some(interval) = &self.interval {
            to.insert("interval".to_owned(), interval.clone().into());
            // Ours has to end before the next begins.
            to.insert("timeout".to_owned(), interval.clone().into());
        }
        if let Some(timeout) = timeout {
            to.insert("timeout".to_owned(), timeout.into());
        }
        to
    }

    fn host(&self, from: &mut Table, out: &mut Converted) {
        out.leave_out(self.line, format!("inputs.{}", self.name), HOST_NAMES);
        if self.name == "cpu" {
            if from.text("percpu").is_some_and(|on| on == "true") {
                out.set("collect", "cpu_per_core", true);
            }
            drop(from.take("totalcpu"));
        }
        if let Some(types) = from.take("ignore_fs") {
            let types: Vec<toml::Value> = types.texts().into_iter().map(Into::into).collect();
            out.set("collect", "ignore_filesystems", types);
        }
    }

    fn prometheus(&self, from: &mut Table, out: &mut Converted) {
        let timeout = from.text("timeout").or_else(|| from.text("response_timeout"));
        let mut to = self.section(timeout);
        to.insert("job".to_owned(), "telegraf".into());
        let urls = from.take("urls").map(Node::texts).unwrap_or_default();
        let urls: Vec<toml::Value> = urls.into_iter().map(Into::into).collect();
        if urls.is_empty() {
            let why = "names no urls; service discovery has no counterpart here";
            out.leave_out(self.line, "inputs.prometheus", why);
            return;
        }
        to.insert("targets".to_owned(), urls.into());
        let same =
            [("bearer_token", "bearer_token_file"), ("tls_ca", "ca_file"), ("username", "user")];
        for (theirs, ours) in same {
            if let Some(text) = from.text(theirs) {
                to.insert(ours.to_owned(), text.into());
            }
        }
        if let Some(password) = from.take("password") {
            to.insert("password_file".to_owned(), "/etc/spillway/scrape.password".into());
            out.leave_out(password.line, "inputs.prometheus.password", SECRET);
        }
        out.add("scrape", to);
    }

    fn mysql(&self, from: &mut Table, out: &mut Converted) {
        let servers = from.take("servers").map(Node::list).unwrap_or_default();
        for server in servers {
            let line = server.line;
            let dsn = server.text().unwrap_or_default();
            let mut to = self.section(None);
            // user:password@tcp(host:port)/?tls=…
            let (login, place) = dsn.rsplit_once('@').unwrap_or(("", &dsn));
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (net, rest) = place.split_once('(').unwrap_or(("tcp", place));
            let (address, rest) = rest.split_once(')').unwrap_or((rest, ""));
            let key = if net == "unix" { "socket" } else { "address" };
            if !address.is_empty() && address != "/" {
                to.insert(key.to_owned(), address.into());
            }
            if !user.is_empty() {
                to.insert("user".to_owned(), user.into());
            }
            if !password.is_empty() {
                to.insert("password_file".to_owned(), "/etc/spillway/mysql.password".into());
                out.leave_out(line, "the password in inputs.mysql.servers", SECRET);
            }
            if rest.contains('?') {
                let why = "options of the address are not carried over; see mysql.tls";
                out.leave_out(line, "inputs.mysql.servers", why);
            }
            out.add("mysql", to);
        }
    }

    fn exec(&self, from: &mut Table, out: &mut Converted) {
        let format = from.text("data_format").unwrap_or_else(|| "influx".to_owned());
        if !["influx", "prometheus"].contains(&format.as_str()) {
            let why = "writes in a format the agent does not read";
            out.leave_out(self.line, format!("inputs.exec ({format})"), why);
            return;
        }
        let timeout = from.text("timeout");
        let commands = from.take("commands").map(Node::list).unwrap_or_default();
        for command in commands {
            let line = command.line;
            let text = command.text().unwrap_or_default();
            if text.contains(['"', '\'', '*', '$', '|']) {
                let why = "there is no shell here: check how its words were parted";
                out.leave_out(line, "inputs.exec.commands", why);
            }
            let words: Vec<toml::Value> = text.split_whitespace().map(Into::into).collect();
            let mut to = self.section(timeout.clone());
            to.insert("command".to_owned(), words.into());
            to.insert("format".to_owned(), format.clone().into());
            out.add("exec", to);
        }
    }

    fn statsd(&self, from: &mut Table, out: &mut Converted) {
        out.set("statsd", "enabled", true);
        if let Some(protocol) = from.take("protocol") {
            let line = protocol.line;
            if protocol.text().is_none_or(|protocol| !protocol.starts_with("udp")) {
                out.leave_out(line, "inputs.statsd.protocol", "StatsD comes over UDP here");
            }
        }
        self.listen("statsd", "listen", from, out);
    }

    /// `:8125` listens everywhere there; here it is loopback, because nothing is authenticated.
    fn listen(&self, section: &str, key: &str, from: &mut Table, out: &mut Converted) {
        let Some(address) = from.take("service_address") else { return };
        let line = address.line;
        let address = address.text().unwrap_or_default();
        let address = address.rsplit("://").next().unwrap_or(&address);
        let local = match address.strip_prefix(':') {
            Some(port) => {
                let why = "listens on loopback alone here: there is no credential";
                out.leave_out(line, format!("inputs.{}.service_address", self.name), why);
                format!("127.0.0.1:{port}")
            }
            None => address.replace("localhost", "127.0.0.1"),
        };
        out.set(section, key, local);
    }
}

fn texts(table: Table) -> toml::Table {
    let entries = table.entries().into_iter();
    entries.filter_map(|(key, _, node)| Some((key, node.text()?.into()))).collect()
}
