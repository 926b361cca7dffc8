//! The invariants of absence: what a place in the code does not know, in one table.
//!
//! ARCHITECTURE.md states them for people; this table is the same list for the machine. What a
//! *package* must not depend on is checked in `policy.rs` against `cargo metadata`.

use super::Finding;
use super::facts::{self, Named};
use super::source::Source;

/// What must not be named.
enum Forbidden {
    /// A crate, as a path's first word.
    Crate(&'static str),
    /// These words, one after the other, anywhere in a path.
    Path(&'static [&'static str]),
    Method(&'static str),
    /// A literal that contains this text.
    Literal(&'static str),
}

struct Absence {
    /// Path prefixes the rule holds for.
    within: &'static [&'static str],
    /// Path prefixes it does not hold for.
    except: &'static [&'static str],
    forbidden: &'static [Forbidden],
    law: &'static str,
}

use Forbidden::{Crate, Literal, Method, Path};

/// Everything that runs in production, in travel order.
const PROGRAMS: &[&str] = &[
    "agent/",
    "ingest-api/",
    "consumer/",
    "recovery-worker/",
    "keeper/",
    "console/",
    "proto/",
    "lib/runtime/",
    "lib/publisher/",
];

/// What runs in the simulation as it is.
const SIMULATED: &[&str] = &[
    "agent/src/assemble",
    "agent/src/identity",
    "agent/src/spool/",
    "agent/src/deliver/",
    "ingest-api/src/",
    "recovery-worker/src/",
];

const ABSENCES: &[Absence] = &[
    Absence {
        within: &["proto/src/"],
        except: &[],
        forbidden: &[
            Path(&["std", "fs"]),
            Path(&["std", "net"]),
            Path(&["std", "process"]),
            Path(&["std", "thread"]),
            Path(&["SystemTime", "now"]),
            Path(&["Instant", "now"]),
            Crate("tokio"),
        ],
        law: "proto does no I/O and reads no clock",
    },
    Absence {
        within: &["agent/src/"],
        except: &[],
        forbidden: &[Crate("rdkafka"), Crate("spillway_publisher")],
        law: "the agent does not know Kafka",
    },
    Absence {
        within: &["agent/src/"],
        except: &["agent/src/collect/mysql/"],
        forbidden: &[Crate("sqlx"), Crate("redis")],
        law: "the agent knows MySQL only as something to be measured, in collect/mysql",
    },
    Absence {
        within: &["ingest-api/src/"],
        except: &[],
        forbidden: &[Crate("aws_sdk_s3"), Crate("sqlx"), Crate("redis")],
        law: "ingest-api does not know S3, MySQL or Redis",
    },
    Absence {
        within: &["consumer/src/"],
        except: &[],
        forbidden: &[Crate("hyper"), Crate("hyper_util"), Crate("aws_sdk_s3")],
        law: "the consumer does not know HTTP or S3",
    },
    Absence {
        within: &["consumer/src/"],
        except: &["consumer/src/commit.rs"],
        forbidden: &[Method("commit")],
        law: "only commit.rs commits",
    },
    Absence {
        within: &["recovery-worker/src/"],
        except: &[],
        forbidden: &[Crate("sqlx"), Crate("redis")],
        law: "recovery-worker does not know MySQL or Redis",
    },
    Absence {
        within: PROGRAMS,
        except: &["recovery-worker/src/retire.rs"],
        forbidden: &[Method("delete_object"), Method("delete_objects")],
        law: "only recovery-worker's retire.rs deletes objects",
    },
    Absence {
        within: PROGRAMS,
        except: &["proto/src/frame", "proto/tests/"],
        forbidden: &[Literal("SPWF")],
        law: "only proto's frame knows a frame's bytes",
    },
    Absence {
        within: SIMULATED,
        // Kafka's own client blocks, and no simulation reaches it.
        except: &["recovery-worker/src/progress.rs"],
        forbidden: &[
            Crate("getrandom"),
            Path(&["Uuid", "now_v7"]),
            Path(&["Uuid", "new_v4"]),
            Path(&["Timestamp", "now"]),
            Path(&["SystemTime", "now"]),
            Path(&["task", "spawn_blocking"]),
        ],
        law: "what is simulated takes chance, clock and threads from lib/runtime's outside.rs",
    },
    Absence {
        within: PROGRAMS,
        except: &[
            "agent/src/settings.rs",
            "ingest-api/src/settings.rs",
            "consumer/src/settings.rs",
            "recovery-worker/src/settings.rs",
            "keeper/src/settings.rs",
            "console/src/settings.rs",
            "lib/runtime/src/",
        ],
        forbidden: &[
            Path(&["env", "var"]),
            Path(&["env", "vars"]),
            Path(&["env", "var_os"]),
            Path(&["env", "vars_os"]),
        ],
        law: "environment variables are read in settings.rs and nowhere else",
    },
];

pub fn check(source: &Source) -> Vec<Finding> {
    if source.is_test_file() {
        return Vec::new();
    }
    let holds = |prefixes: &[&str]| prefixes.iter().any(|prefix| source.path.starts_with(prefix));
    let in_force: Vec<&Absence> =
        ABSENCES.iter().filter(|rule| holds(rule.within) && !holds(rule.except)).collect();
    if in_force.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for fact in facts::gather(source) {
        for rule in &in_force {
            if rule.forbidden.iter().any(|forbidden| matches(forbidden, &fact.named)) {
                findings.push(source.finding(fact.line, rule.law));
            }
        }
    }
    findings.dedup();
    findings
}

fn matches(forbidden: &Forbidden, named: &Named) -> bool {
    match (forbidden, named) {
        (Crate(name), Named::Path(path)) => path.first().is_some_and(|first| first == name),
        (Path(words), Named::Path(path)) => {
            path.windows(words.len()).any(|window| window.iter().eq(words.iter()))
        }
        (Method(name), Named::Method(method)) => name == method,
        (Literal(text), Named::Literal(literal)) => literal.contains(text),
        _ => false,
    }
}
