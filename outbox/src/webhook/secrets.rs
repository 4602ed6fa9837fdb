//! What webhooks are signed with: one secret, or several while they are rotated. Never shown, never written.

use std::fmt;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

/// How a secret begins, after Standard Webhooks.
const PREFIX: &str = "whsec_";
/// Shortest secret, in bytes: 192 bits.
const BYTES_MIN: usize = 24;
/// Longest secret, in bytes: 512 bits.
const BYTES_MAX: usize = 64;
/// Most secrets at once: each adds a signature to every request.
const SECRETS_MAX: usize = 8;

/// Takes base64 with or without its padding, because both are handed around.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Secrets as configured: `whsec_…`, or several of them in a list or with spaces between.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Takes secrets, newest first. They are checked when the outbox starts.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys to sign with.
    ///
    /// # Errors
    /// What is wrong with them, without saying what they are.
    pub(crate) fn keys(&self) -> Result<Keys, String> {
        if self.0.is_empty() || self.0.len() > SECRETS_MAX {
            return Err(format!(
                "{} secrets are set, 1 to {SECRETS_MAX} are needed",
                self.0.len()
            ));
        }
        let keys = self.0.iter().enumerate().map(|(index, secret)| {
            let key = key(secret).map_err(|reason| format!("secret {} {reason}", index + 1))?;
            Hmac::new_from_slice(&key).map_err(|error| error.to_string())
        });
        keys.collect::<Result<_, _>>().map(Keys)
    }
}

fn key(secret: &str) -> Result<Vec<u8>, String> {
    let encoded = secret
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("does not begin with `{PREFIX}`"))?;
    let key = BASE64
        .decode(encoded)
        .map_err(|_| format!("is not base64 after `{PREFIX}`"))?;
    if (BYTES_MIN..=BYTES_MAX).contains(&key.len()) {
        Ok(key)
    } else {
        Err(format!(
            "has {} bytes, {BYTES_MIN} to {BYTES_MAX} are needed",
            key.len()
        ))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} redacted", self.0.len())
    }
}

impl Serialize for Secrets {
    /// As many `[redacted]` as there are secrets: the effective configuration is printed for people.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|_| "[redacted]"))
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretsVisitor)
    }
}

struct SecretsVisitor;

impl<'de> Visitor<'de> for SecretsVisitor {
    type Value = Secrets;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a secret `whsec_…`, several with spaces between, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secrets, E> {
        Ok(Secrets::new(text.split_whitespace().map(str::to_owned)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Secrets, A::Error> {
        let mut secrets = Vec::new();
        while let Some(secret) = sequence.next_element()? {
            secrets.push(secret);
        }
        Ok(Secrets(secrets))
    }
}

/// Secrets that were checked.
#[derive(Clone)]
pub(crate) struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// The value of `webhook-signature`: a signature a key, of `<id>.<timestamp>.<body>`.
    pub(crate) fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut signatures = String::new();
        for key in &self.0 {
            let mut mac = key.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            signatures.push_str("v1,");
            BASE64.encode_string(mac.finalize().into_bytes(), &mut signatures);
        }
        signatures
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} redacted", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of Standard Webhooks' own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signed_with(secrets: &[&str]) -> Result<String, String> {
        let secrets = Secrets::new(secrets.iter().map(|secret| (*secret).to_owned()));
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        Ok(secrets
            .keys()?
            .sign(id, "1614265330", br#"{"test": 2432232314}"#))
    }

    fn secret_of(bytes: usize) -> String {
        format!("{PREFIX}{}", BASE64.encode(vec![7; bytes]))
    }

    #[test]
    fn the_published_vector_is_reproduced() {
        assert_eq!(signed_with(&[SECRET]).unwrap(), SIGNATURE);
    }

    #[test]
    fn during_a_rotation_every_secret_signs() {
        let other = secret_of(32);
        let both = signed_with(&[&other, SECRET]).unwrap();
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, signed_with(&[&other]).unwrap());
        assert_eq!(second, SIGNATURE);
    }

    #[test]
    fn a_secret_has_24_to_64_bytes_and_its_prefix() {
        for bytes in [24, 64] {
            assert!(signed_with(&[&secret_of(bytes)]).is_ok());
        }
        for (secret, reason) in [
            (secret_of(23), "secret 1 has 23 bytes, 24 to 64 are needed"),
            (secret_of(65), "secret 1 has 65 bytes, 24 to 64 are needed"),
            (
                "whsec_not base64!".to_owned(),
                "secret 1 is not base64 after `whsec_`",
            ),
            (
                SECRET.replace("whsec_", ""),
                "secret 1 does not begin with `whsec_`",
            ),
        ] {
            assert_eq!(signed_with(&[&secret]).unwrap_err(), reason);
        }
        assert_eq!(
            signed_with(&[]).unwrap_err(),
            "0 secrets are set, 1 to 8 are needed"
        );
    }

    #[test]
    fn padding_may_be_left_out() {
        let padded = secret_of(32);
        let bare = padded.trim_end_matches('=');
        assert_ne!(bare, padded);
        assert_eq!(
            signed_with(&[bare]).unwrap(),
            signed_with(&[&padded]).unwrap()
        );
    }

    #[test]
    fn one_text_with_spaces_and_a_list_are_the_same_secrets() {
        let text: Secrets = serde_json::from_str(r#""whsec_a whsec_b""#).unwrap();
        let list: Secrets = serde_json::from_str(r#"["whsec_a", "whsec_b"]"#).unwrap();
        assert_eq!(text.0, ["whsec_a", "whsec_b"]);
        assert_eq!(text.0, list.0);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secrets = Secrets::new([SECRET.to_owned()]);
        let shown = format!(
            "{secrets:?} {:?} {}",
            secrets.keys().unwrap(),
            serde_json::to_string(&secrets).unwrap()
        );
        assert!(!shown.contains("MfKQ"), "{shown}");
        assert!(shown.contains("[redacted]"), "{shown}");
        let wrong = Secrets::new(["whsec_hidden!".to_owned()])
            .keys()
            .unwrap_err();
        assert!(!wrong.contains("hidden"), "{wrong}");
    }
}
