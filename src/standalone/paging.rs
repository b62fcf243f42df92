//! Lists in pages: the parameters `limit` and `continuationToken` of a call, and the token in its reply.
//!
//! A token is the place in the list after which the next page begins, as JSON in base64url. Callers have no use for what
//! is in it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exchange::Exchange;
use super::reply::{Code, Refusal};
use crate::queue::Part;

/// Items of a page at most, and where nobody says how many.
const MOST: usize = 1000;

const LIMIT: &str = "limit";
const TOKEN: &str = "continuationToken";

/// Which parameters a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    None,
    OfList,
}

/// Refuses parameters that a method does not take, and values that they cannot have.
pub(super) fn check(query: &str, takes: Parameters) -> Result<(), Refusal> {
    let mut seen = Vec::new();
    for (name, value) in parameters(query) {
        let wrong = match name.as_str() {
            // Part of a signature in a URL.
            "bewit" => continue,
            LIMIT | TOKEN if takes == Parameters::None => "is not one of this method",
            LIMIT | TOKEN if seen.contains(&name) => "must be there once",
            LIMIT if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) => {
                "must be a number"
            }
            TOKEN if value.is_empty() => "must not be empty",
            LIMIT | TOKEN => {
                seen.push(name);
                continue;
            }
            _ => "is not one of this method",
        };
        let message = format!("the parameter {name} of the query {wrong}");
        return Err(Refusal::new(Code::InvalidRequestArguments, message));
    }
    Ok(())
}

/// The part of a list that a call asks for.
pub(super) fn part<K: DeserializeOwned>(it: &Exchange<'_>) -> Result<Part<K>, Refusal> {
    read(&it.query)
}

fn read<K: DeserializeOwned>(query: &str) -> Result<Part<K>, Refusal> {
    let mut part = Part { after: None, most: MOST };
    for (name, value) in parameters(query) {
        match name.as_str() {
            // What no number holds is more than enough.
            LIMIT => part.most = value.parse().unwrap_or(MOST).min(MOST),
            TOKEN => part.after = Some(place(&value).ok_or_else(unknown)?),
            _ => {}
        }
    }
    Ok(part)
}

fn unknown() -> Refusal {
    Refusal::new(Code::InputError, "the continuationToken is none that this method has given out")
}

fn place<K: DeserializeOwned>(token: &str) -> Option<K> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// The token of the page that begins after a place.
pub(super) fn token<K: Serialize>(next: Option<K>) -> Option<String> {
    // Ids, names and times: there is nothing that JSON cannot hold.
    next.map(|place| URL_SAFE_NO_PAD.encode(serde_json::to_vec(&place).unwrap_or_default()))
}

/// The parameters in a query, decoded.
fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_asked_only_for_what_it_takes() {
        for (query, of_list, of_others) in [
            ("", true, true),
            ("limit=5", true, false),
            ("limit=5&continuationToken=x", true, false),
            ("bewit=x", true, true),
            ("limit=", false, false),
            ("limit=-1", false, false),
            ("limit=1&limit=2", false, false),
            ("continuationToken=", false, false),
            ("continuationToken", false, false),
            ("li%6Dit=5", true, false),
            ("other=1", false, false),
        ] {
            assert_eq!(check(query, Parameters::OfList).is_ok(), of_list, "{query}");
            assert_eq!(check(query, Parameters::None).is_ok(), of_others, "{query}");
        }
    }

    #[test]
    fn a_page_begins_after_the_place_that_its_token_says() {
        let most = |query| read::<u32>(query).unwrap().most;
        assert_eq!((most(""), most("limit=7"), most("limit=0"), most("limit=1001")), (MOST, 7, 0, MOST));
        assert_eq!(most("limit=99999999999999999999999999"), MOST);
        assert_eq!(token(None::<u32>), None);
        let token = token(Some((5, "a b/é"))).unwrap();
        let part = read::<(u32, String)>(&format!("continuationToken={token}")).unwrap();
        assert_eq!(part.after, Some((5, "a b/é".to_owned())));
        for wrong in ["a!", "NQ"] {
            assert!(read::<(u32, String)>(&format!("continuationToken={wrong}")).is_err(), "{wrong}");
        }
    }
}
