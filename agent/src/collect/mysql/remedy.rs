//! What to do about a server that can't be measured, by what it answered.

use std::error::Error;

use super::AskError;

/// The remedy, if `error` is an answer of the server's that has one.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(AskError::Sql(error)) = error.downcast_ref::<AskError>() {
        return of_sql(error);
    }
    error.downcast_ref::<sqlx::Error>().and_then(of_sql)
}

fn of_sql(error: &sqlx::Error) -> Option<&'static str> {
    // What lies beneath (a socket, a certificate) says more than that it failed.
    let sqlx::Error::Database(cause) = error else { return None };
    let number = cause.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number();
    Some(match number {
        1044 | 1045 | 1698 => {
            "check user and password_file; docs/inputs.md has the CREATE USER and its GRANTs"
        }
        1142 | 1227 => "GRANT what docs/inputs.md lists",
        1129 => "FLUSH HOSTS on that server: it has blocked this one after too many bad logins",
        1130 => "CREATE USER for this host: the server knows none that may come from here",
        1040 | 1203 | 1226 => "raise the server's or the user's limit of connections",
        _ => return None,
    })
}
