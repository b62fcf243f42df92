//! The parameters in the path of a call.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::reply::{Code, Refusal};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::is_queue_id;
use crate::queue::task_id::TaskId;
use crate::queue::{RunId, is_index_path};

/// The parameters in a path, decoded.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(&'static str, String)>);

impl Params {
    /// The parameters in the parts of a path that is of that form: `<x>` is one part, `<*x>` one or more.
    pub(super) fn of(form: &'static str, parts: &[&str]) -> Option<Params> {
        let mut params = Params::default();
        let mut rest = parts;
        let wanted: Vec<&str> = form.split('/').collect();
        for (wanted, left) in wanted.iter().zip((0..wanted.len()).rev()) {
            let parameter = wanted.strip_prefix('<').and_then(|name| name.strip_suffix('>'));
            let (first, after) = rest.split_first()?;
            rest = match parameter.map(|name| (name, name.strip_prefix('*'))) {
                None if first == wanted => after,
                None => return None,
                Some((name, None)) => {
                    params.0.push((name, decode(first)?));
                    after
                }
                Some((_, Some(name))) => {
                    let (own, after) = rest.split_at_checked(rest.len().checked_sub(left)?)?;
                    params.0.push((name, decode(&own.join("/"))?));
                    after
                }
            };
        }
        rest.is_empty().then_some(params)
    }

    /// One of them; empty where the route has no such one.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }

    /// A scope in which `<…>` stands for a parameter.
    pub(super) fn fill(&self, scope: &str) -> String {
        self.0.iter().fold(scope.to_owned(), |scope, (name, text)| scope.replace(&format!("<{name}>"), text))
    }

    /// Refuses what no parameter of that name can be.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (name, text) in &self.0 {
            match *name {
                "taskId" | "taskGroupId" => drop(self.id(name)?),
                "runId" => drop(self.run_id()?),
                "taskQueueId" | "workerPoolId" if !is_queue_id(text) => {
                    return Err(unfit(name, "PROVISIONER/TYPE"));
                }
                "indexPath" | "namespace" if !is_index_path(text) => {
                    return Err(unfit(
                        name,
                        "words of letters, digits and _!~*'()%-, with dots between them",
                    ));
                }
                "provisionerId" | "workerType" | "workerGroup" | "workerId" if !is_word(text) => {
                    return Err(unfit(name, WORD));
                }
                // Whoever uses them asks for more of them.
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn task_id(&self) -> Result<TaskId, Refusal> {
        self.id("taskId")
    }

    pub(super) fn task_group_id(&self) -> Result<TaskId, Refusal> {
        self.id("taskGroupId")
    }

    fn id(&self, name: &str) -> Result<TaskId, Refusal> {
        TaskId::parse(self.text(name)).map_err(|_| unfit(name, "a slugid"))
    }

    pub(super) fn run(&self) -> Result<RunId, Refusal> {
        Ok(RunId { task_id: self.task_id()?, run_id: self.run_id()? })
    }

    pub(super) fn artifact(&self) -> Result<ArtifactName, Refusal> {
        let name = self.text("name");
        if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(unfit("name", "printable ASCII"));
        }
        ArtifactName::new(name).map_err(|error| {
            Refusal::new(Code::InvalidRequestArguments, format!("the parameter name must {error}"))
        })
    }

    fn run_id(&self) -> Result<u32, Refusal> {
        let text = self.text("runId");
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).ok_or_else(|| unfit("runId", "a number"))
    }

    /// As JSON, for a refusal's reply.
    pub(super) fn to_json(&self) -> Value {
        let members = self.0.iter().map(|(name, text)| ((*name).to_owned(), Value::String(text.clone())));
        Value::Object(members.collect::<Map<_, _>>())
    }
}

fn decode(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

/// What the name of a worker, of its group or of half of its pool is.
pub(super) const WORD: &str = "1 to 38 letters, digits, - and _";

pub(super) fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=38).contains(&text.len()) && text.bytes().all(fits)
}

fn unfit(name: &str, wanted: &str) -> Refusal {
    Refusal::new(Code::InvalidRequestArguments, format!("the parameter {name} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_what_their_names_say() {
        let of = |name, text: &str| Params(vec![(name, text.to_owned())]);
        for (name, text, fits) in [
            ("runId", "0", true),
            ("runId", "+1", false),
            ("runId", "4294967296", false),
            ("taskId", "fN1SbArXTPSVFNUvaOlinQ", true),
            ("taskId", "../../etc/passwd", false),
            ("taskQueueId", "p/t", true),
            ("taskQueueId", "p/t/u", false),
            ("taskQueueId", "p", false),
            ("workerPoolId", "p/", false),
            ("workerId", "w_1", true),
            ("workerId", "", false),
            ("workerGroup", "a/b", false),
        ] {
            assert_eq!(of(name, text).check().is_ok(), fits, "{name} {text}");
        }
        for name in ["../a", "/a", "a//b", "é", "a\nb"] {
            assert!(of("name", name).artifact().is_err(), "{name}");
        }
    }
}
