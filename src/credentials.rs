//! Who we are to the token endpoint.

use std::{env, error::Error, fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

/// An app id and its secret, as Symbl's console shows them.
///
/// Nothing is checked about their form: Symbl documents 64 and 128 characters of `[0-9a-z]`, but only
/// one of its SDKs holds to it. Clones share one copy, which is zeroized when the last is dropped.
///
/// ```
/// use tower_symbl_auth::Credentials;
///
/// let credentials = Credentials::new("my-app", "my-secret");
/// assert_eq!(credentials.app_id(), "my-app");
/// assert!(!format!("{credentials:?}").contains("my-secret"));
/// ```
#[derive(Clone)]
pub struct Credentials {
    app_id: Arc<str>,
    app_secret: Arc<SecretString>,
}

impl Credentials {
    /// Credentials from an app id and its secret.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<String>) -> Self {
        Self {
            app_id: app_id.into().into(),
            app_secret: Arc::new(SecretString::from(app_secret.into())),
        }
    }

    /// Credentials from `SYMBL_APP_ID` and `SYMBL_APP_SECRET` or, with neither of them set, from
    /// `APP_ID` and `APP_SECRET`, which Symbl's own samples use. White space around a value, such as the
    /// line break at the end of a file, is taken off.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] names the variable that is missing, empty or not Unicode.
    pub fn from_env() -> Result<Self, CredentialsError> {
        Self::from_variables(|name| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(Fault::NotUnicode),
        })
    }

    /// The app id. It is not a secret.
    #[must_use]
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    pub(crate) fn app_secret(&self) -> &str {
        self.app_secret.expose_secret()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.app_id() == other.app_id() && self.app_secret() == other.app_secret()
    }

    fn from_variables(
        read: impl Fn(&'static str) -> Result<Option<String>, Fault>,
    ) -> Result<Self, CredentialsError> {
        let read = |name| read(name).map_err(|fault| CredentialsError { name, fault });
        let own = (read("SYMBL_APP_ID")?, read("SYMBL_APP_SECRET")?);
        // A pair is never mixed from both sets: half of the first set is a mistake to report.
        let (names, (id, secret)) = if own.0.is_some() || own.1.is_some() {
            (["SYMBL_APP_ID", "SYMBL_APP_SECRET"], own)
        } else {
            let sample = (read("APP_ID")?, read("APP_SECRET")?);
            match sample {
                (None, None) => (["SYMBL_APP_ID", "SYMBL_APP_SECRET"], sample),
                sample => (["APP_ID", "APP_SECRET"], sample),
            }
        };
        let present = |name, value: Option<String>| match value {
            None => Err(CredentialsError {
                name,
                fault: Fault::Missing,
            }),
            Some(value) => match Zeroizing::new(value).trim() {
                "" => Err(CredentialsError {
                    name,
                    fault: Fault::Empty,
                }),
                value => Ok(value.to_owned()),
            },
        };
        Ok(Self::new(
            present(names[0], id)?,
            present(names[1], secret)?,
        ))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("app_id", &self.app_id)
            .field("app_secret", &"[redacted]")
            .finish()
    }
}

/// Why [`Credentials::from_env`] found no credentials. Names the variable to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsError {
    name: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Missing,
    Empty,
    NotUnicode,
}

impl CredentialsError {
    /// The environment variable at fault.
    #[must_use]
    pub fn variable(&self) -> &'static str {
        self.name
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.fault {
            Fault::Missing => write!(
                f,
                "environment variable {name} is not set: set it to the value in Symbl's console"
            ),
            Fault::Empty => write!(
                f,
                "environment variable {name} is empty: set it to the value in Symbl's console"
            ),
            Fault::NotUnicode => write!(f, "environment variable {name} is not valid Unicode"),
        }
    }
}

impl Error for CredentialsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(set: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        Credentials::from_variables(|name| {
            let found = set.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn symbl_variables_come_before_those_of_the_samples() {
        let all = [
            ("SYMBL_APP_ID", "a"),
            ("SYMBL_APP_SECRET", "b"),
            ("APP_ID", "c"),
            ("APP_SECRET", "d"),
        ];
        let found = from(&all).unwrap();
        assert_eq!((found.app_id(), found.app_secret()), ("a", "b"));
        let found = from(&all[2..]).unwrap();
        assert_eq!((found.app_id(), found.app_secret()), ("c", "d"));
    }

    #[test]
    fn white_space_around_a_value_is_taken_off() {
        let files = from(&[("APP_ID", " a\n"), ("APP_SECRET", "b c\r\n")]).unwrap();
        assert_eq!((files.app_id(), files.app_secret()), ("a", "b c"));
    }

    #[test]
    fn the_error_names_the_variable_that_is_missing_or_empty() {
        let missing = from(&[]).unwrap_err();
        assert_eq!(missing.variable(), "SYMBL_APP_ID");
        let half = from(&[("SYMBL_APP_ID", "a"), ("APP_ID", "c"), ("APP_SECRET", "d")]);
        assert_eq!(half.unwrap_err().variable(), "SYMBL_APP_SECRET");
        let empty = from(&[("APP_ID", "a"), ("APP_SECRET", " ")]).unwrap_err();
        assert_eq!(empty.variable(), "APP_SECRET");
        assert!(empty.to_string().contains("APP_SECRET is empty"));
    }
}
