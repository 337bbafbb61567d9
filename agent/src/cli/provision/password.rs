//! Passwords, and Mosquitto's file of them: `user:$7$iterations$salt$hash`, PBKDF2 with HMAC-SHA-512 (mosquitto_passwd(1)).

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA512};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::num::NonZeroU32;

/// Random bytes of a password: 192 bits, 32 characters.
const PASSWORD_LEN: usize = 24;
/// Mosquitto 2.0 takes no other length.
const SALT_LEN: usize = 12;
const HASH_LEN: usize = 64;
/// What mosquitto_passwd takes. A slow hash protects weak passwords, and these are not; and Mosquitto, which has one thread,
/// computes it at every connection.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).unwrap();
/// A file that asks for more is not ours, and would hold us up.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Random bytes from the system.
pub(super) fn random<const LEN: usize>() -> anyhow::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

/// A new password, of the characters `A-Z a-z 0-9 - _`.
pub(super) fn new() -> anyhow::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<PASSWORD_LEN>()?))
}

/// A line of the password file, with a new salt.
pub(super) fn line(user: &str, password: &str) -> anyhow::Result<String> {
    let salt = random::<SALT_LEN>()?;
    Ok(format!("{user}:{}", hash(password, ITERATIONS, &salt)))
}

fn hash(password: &str, iterations: NonZeroU32, salt: &[u8]) -> String {
    let mut hash = [0; HASH_LEN];
    pbkdf2::derive(PBKDF2_HMAC_SHA512, iterations, salt, password.as_bytes(), &mut hash);
    format!("$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
}

/// Whether a line of the password file is for `user` and this password.
pub(super) fn is_line_of(line: &str, user: &str, password: &str) -> bool {
    let Some(fields) = line.strip_prefix(user).and_then(|rest| rest.strip_prefix(":$7$")) else {
        return false;
    };
    let mut fields = fields.split('$');
    let iterations = fields.next().and_then(|text| text.parse::<NonZeroU32>().ok());
    let mut bytes = || fields.next().and_then(|text| STANDARD.decode(text).ok());
    let (Some(iterations), Some(salt), Some(hash)) = (iterations, bytes(), bytes()) else { return false };
    iterations.get() <= ITERATIONS_MAX
        && salt.len() == SALT_LEN
        && pbkdf2::verify(PBKDF2_HMAC_SHA512, iterations, &salt, password.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by mosquitto_passwd 2.0.11 of user `u` and password `p`.
    const THEIRS: &str = "u:$7$101$Z6g6JZuWa+c0TcY2$zzcBWOt+VUU7v6gZBcrUtWFOeHKCYTVQw6IQ9QNffgsozV8TteGDrS3biL4NR1vbLlw5FTs5o9v/Yoa8Hh1wPw==";

    #[test]
    fn hashes_are_those_that_mosquitto_makes() {
        let salt = STANDARD.decode("Z6g6JZuWa+c0TcY2").unwrap();
        assert_eq!(format!("u:{}", hash("p", ITERATIONS, &salt)), THEIRS);
        assert!(is_line_of(THEIRS, "u", "p"));
        for (user, password) in [("u", "q"), ("v", "p"), ("", "p"), ("u:", "p")] {
            assert!(!is_line_of(THEIRS, user, password), "{user} {password}");
        }
    }

    #[test]
    fn a_line_that_is_not_whole_belongs_to_nobody() {
        for line in ["", "u", "u:", "u:$7$", "u:$7$0$AAAA$AAAA", "u:$7$101$Z6g6JZuWa+c0TcY2", "u:$6$a$b"] {
            assert!(!is_line_of(line, "u", "p"), "{line}");
        }
        assert!(!is_line_of(&THEIRS.replace("101", "4000000000"), "u", "p"));
    }

    #[test]
    fn passwords_have_192_random_bits_and_characters_that_need_no_quotes() {
        let (one, other) = (new().unwrap(), new().unwrap());
        assert_ne!(one, other);
        assert_eq!(URL_SAFE_NO_PAD.decode(&one).unwrap().len(), 24);
        assert_ne!(line("u", &one).unwrap(), line("u", &one).unwrap());
        assert!(is_line_of(&line("u", &one).unwrap(), "u", &one));
    }
}
