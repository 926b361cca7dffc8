//! What to do about an input that failed, by what failed beneath it.

use std::error::Error;
use std::io;

use http::StatusCode;
use rustls::CertificateError;
use spillway_runtime::deadline::DeadlineExceeded;
use spillway_runtime::settings::SecretFileError;

use crate::collect::exec::RunError;
use crate::collect::mysql;
use crate::collect::scrape::answer::BadAnswer;
use crate::collect::scrape::fetch::FetchError;

/// The remedy for the first cause, from the outside in, that has one.
pub fn remedy(cause: &(dyn Error + 'static)) -> &'static str {
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(known) = known(error) {
            return known;
        }
        next = error.source();
    }
    "docs/inputs.md has what this input needs"
}

fn known(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<FetchError>() {
        return of_fetch(error);
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return of_run(error);
    }
    if let Some(told) = mysql::remedy(error) {
        return Some(told);
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return of_tls(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
        return inner.and_then(known).or_else(|| of_io(error.kind()));
    }
    if error.is::<SecretFileError>() {
        return Some("correct the path of the secret, or let the agent's user read it");
    }
    error.is::<DeadlineExceeded>().then_some(
        "see why it takes that long (or what swallows packets on the way), or raise its timeout",
    )
}

fn of_fetch(error: &FetchError) -> Option<&'static str> {
    Some(match error {
        FetchError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "set bearer_token_file, or user and password_file, to what the target asks for"
        }
        FetchError::Status(StatusCode::NOT_FOUND) => "correct the path of the target",
        FetchError::Status(_) => "open the URL with curl: it must answer 200 itself",
        FetchError::TooLong(_) => "raise body_bytes_max, or let the target say less",
        FetchError::Bad(bad) => return Some(of_answer(bad)),
        FetchError::SecretForm => "the secret must be one line of visible characters",
        FetchError::Encoded => "let the target answer uncompressed",
        FetchError::Unanswered(_) | FetchError::Broken(_) | FetchError::Secret(_) => return None,
    })
}

fn of_answer(bad: &BadAnswer) -> &'static str {
    match bad {
        BadAnswer::Samples(_) => "raise samples_max, or let the target say less",
        BadAnswer::Labels { .. } => "raise labels_max",
        BadAnswer::LongLabel { .. } => "raise label_value_bytes_max",
        BadAnswer::Unpackable { .. } => "raise collect.tray_bytes_max, or let it say less",
        BadAnswer::Line { .. } | BadAnswer::LongLine { .. } | BadAnswer::CutOff => {
            "it must be Prometheus or OpenMetrics text: is it the right URL or format?"
        }
    }
}

fn of_run(error: &RunError) -> Option<&'static str> {
    Some(match error {
        RunError::Start(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            "make it executable for the agent's user: chmod 755, and each folder above it"
        }
        RunError::Start(cause) if cause.kind() == io::ErrorKind::NotFound => {
            "give the program's whole path, and see that it (or what its first line names) is there"
        }
        RunError::Start(_) => "run it by hand as the agent's user",
        RunError::Failed { .. } => "run it by hand as the agent's user; it must end with 0",
        RunError::TooMuch(_) => "raise output_bytes_max, or let it write less",
        RunError::Prometheus(_) | RunError::Influx(_) => "set format to what it writes",
        RunError::Read(_) | RunError::Late(_) => "run it by hand, or raise its timeout",
    })
}

fn of_tls(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(cause) = error else {
        return Some("does it speak TLS at all? else http:// or tls = \"disabled\"");
    };
    Some(match cause {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "ask by a name that stands in its certificate, or have one made with this name"
        }
        CertificateError::UnknownIssuer => "set ca_file to the authority that signed it",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew its certificate"
        }
        _ => "have its certificate made anew",
    })
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => {
            "start what should listen there, or correct the address: nothing listens now"
        }
        io::ErrorKind::NotFound => "correct the path: nothing is there",
        io::ErrorKind::PermissionDenied => "let the agent's user open it",
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => "check the way there: route and firewall",
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "is it the right port, and http or https as it should be?"
        }
        _ => return None,
    })
}
