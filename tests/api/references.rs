//! The API references of services, and the JSON schemas that they name.
//!
//! A file of them is a list of `{"filename": …, "content": …}`: `references/SERVICE/v1/api.json` lists a service's methods,
//! any content with an `$id` is a schema. Its `$ref`s are relative to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use jsonschema::{Draft, Retrieve, Uri, Validator};
use serde_json::{Value, json};

/// Where the schemas would be, if they were anywhere.
const ROOT: &str = "https://references.invalid";

/// See the module's head.
pub struct References {
    methods: Vec<Method>,
    schemas: Schemas,
    /// By the URLs of the schemas, once they have been asked for.
    validators: RefCell<BTreeMap<String, Rc<Validator>>>,
}

/// A method of a service.
#[derive(Debug)]
struct Method {
    service: String,
    name: String,
    verb: String,
    /// Components; `<x>` is any one, and any number of them at the end.
    route: Vec<String>,
    input: Option<String>,
    output: Option<String>,
}

/// Schemas by URL.
#[derive(Clone)]
struct Schemas(BTreeMap<String, Value>);

impl Retrieve for Schemas {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let url = uri.as_str().trim_end_matches('#');
        self.0.get(url).cloned().ok_or_else(|| format!("there is no schema {url}").into())
    }
}

impl References {
    /// Reads a file.
    pub fn read(text: &[u8]) -> Result<References, String> {
        let files: Vec<Value> =
            serde_json::from_slice(text).map_err(|error| format!("is no list of references: {error}"))?;
        let (mut methods, mut schemas) = (Vec::new(), Schemas(BTreeMap::new()));
        for mut content in files.into_iter().map(|mut file| file["content"].take()) {
            if let Some(id) = content["$id"].as_str() {
                let url = format!("{ROOT}{}", id.trim_end_matches('#'));
                // Theirs has a meta-schema of its own, which is draft 6 and more words for people.
                content.as_object_mut().unwrap().remove("$schema");
                content["$id"] = json!(url);
                schemas.0.insert(url, content);
            } else if content["entries"].is_array() && content["serviceName"].is_string() {
                methods.extend(Method::all_of(&content));
            }
        }
        if methods.is_empty() {
            return Err(
                "has no API of a service: it must be such a file as generated/references.json".to_owned()
            );
        }
        Ok(References { methods, schemas, validators: RefCell::default() })
    }

    /// The method that a request was for, or how it, or its reply, deviates. What a service does not take it has to
    /// refuse, and nothing else with that word.
    pub fn exchange(
        &self,
        request: &str,
        payload: &Value,
        status: u64,
        reply: &Value,
    ) -> Result<String, String> {
        let (verb, path) = request.split_once(' ').unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().trim_start_matches("/api/");
        let (service, path) = path.split_once("/v1/").unwrap_or((path, ""));
        if !self.methods.iter().any(|method| method.service == service) {
            return Ok(format!("{service} (not in the references)"));
        }
        let parts: Vec<&str> = path.split('/').collect();
        let here = |method: &&Method| method.service == service && method.is_at(verb, &parts);
        // A name may hold slashes: the longest route is the one that was meant.
        let Some(method) = self.methods.iter().filter(here).max_by_key(|method| method.route.len()) else {
            return if status == 404 {
                Ok(service.to_owned())
            } else {
                Err("there is no such method".to_owned())
            };
        };
        let taken = match &method.input {
            Some(schema) => self.validate(service, schema, payload),
            None if payload.is_null() => Ok(()),
            None => Err("it takes no payload".to_owned()),
        };
        let is_invalid = reply["code"] == "InputValidationError";
        match taken {
            Err(deviation) if status < 400 => return Err(format!("the payload was taken, but {deviation}")),
            Ok(()) if is_invalid => return Err(format!("the payload {payload} is refused as invalid")),
            Ok(()) | Err(_) => {}
        }
        self.judge(method, status, reply).map(|()| format!("{service} {}", method.name))
    }

    /// Whether a method may answer so.
    pub fn reply(&self, method: &str, status: u64, reply: &Value) -> Result<(), String> {
        match self.methods.iter().find(|known| known.name == method) {
            Some(method) => self.judge(method, status, reply),
            // Of a service that is not in the references.
            None => Ok(()),
        }
    }

    fn judge(&self, method: &Method, status: u64, reply: &Value) -> Result<(), String> {
        match (status, &method.output) {
            (200..=399, Some(schema)) => self
                .validate(&method.service, schema, reply)
                .map_err(|deviation| format!("the reply {reply}: {deviation}")),
            (200..=399, None) => Ok(()),
            // Why there is an artifact and no content.
            (424, _) if reply["reason"].is_string() && reply["message"].is_string() => Ok(()),
            _ if reply["code"].is_string()
                && reply["message"].is_string()
                && reply["requestInfo"].is_object() =>
            {
                Ok(())
            }
            _ => Err(format!("the refusal {reply} does not say code, message and requestInfo")),
        }
    }

    fn validate(&self, service: &str, schema: &str, value: &Value) -> Result<(), String> {
        let validator = self.validator(format!("{ROOT}/schemas/{service}/{schema}"))?;
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{} {error}", error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(format!("{schema} says: {}", errors.join("; "))) }
    }

    fn validator(&self, url: String) -> Result<Rc<Validator>, String> {
        if let Some(known) = self.validators.borrow().get(&url) {
            return Ok(Rc::clone(known));
        }
        let made = jsonschema::options()
            .with_draft(Draft::Draft6)
            .with_retriever(self.schemas.clone())
            .should_validate_formats(true)
            .build(&json!({ "$ref": url }))
            .map_err(|error| format!("{url} cannot be used: {error}"))?;
        let made = Rc::new(made);
        self.validators.borrow_mut().insert(url, Rc::clone(&made));
        Ok(made)
    }
}

impl Method {
    fn all_of(reference: &Value) -> Vec<Method> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let entries = reference["entries"].as_array().unwrap().iter();
        let methods = entries.filter_map(|entry| {
            let route = entry["route"].as_str()?.trim_start_matches('/');
            Some(Method {
                service: text(&reference["serviceName"])?,
                name: text(&entry["name"])?,
                verb: text(&entry["method"])?.to_uppercase(),
                route: route.split('/').map(str::to_owned).collect(),
                input: text(&entry["input"]),
                output: text(&entry["output"]).filter(|output| output != "blob"),
            })
        });
        methods.collect()
    }

    fn is_at(&self, verb: &str, parts: &[&str]) -> bool {
        let is_open = |part: &String| part.starts_with('<');
        let fits = self.route.iter().zip(parts).all(|(known, part)| is_open(known) || known == part);
        let many = parts.len() > self.route.len() && self.route.last().is_some_and(is_open);
        self.verb == verb && fits && (parts.len() == self.route.len() || many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references() -> References {
        let api = json!({"serviceName": "queue", "entries": [
            {"method": "post", "route": "/run/<id>/end", "name": "end",
             "input": "v1/end.json#", "output": "v1/run.json#"},
            {"method": "get", "route": "/file/<name>", "name": "file"},
            {"method": "post", "route": "/run/<id>", "name": "begin"},
        ]});
        let end = json!({"$id": "/schemas/queue/v1/end.json#", "$schema": "/schemas/common/metaschema.json#",
            "type": "object", "properties": {"reason": {"$ref": "run.json#/properties/reason"}},
            "required": ["reason"], "additionalProperties": false});
        let run = json!({"$id": "/schemas/queue/v1/run.json#", "type": "object", "properties": {
            "reason": {"enum": ["done", "lost"]}, "ended": {"type": "string", "format": "date-time"}},
            "required": ["ended"]});
        let file = json!([{"content": api}, {"content": end}, {"content": run}]);
        References::read(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_kind_of_deviation_is_found() {
        let references = references();
        let (end, done) = ("POST /api/queue/v1/run/1/end", json!({"reason": "done"}));
        let ended = json!({"ended": "2026-01-01T00:00:00.000Z"});
        let refused = |code: &str| json!({"code": code, "message": "m", "requestInfo": {}});
        let odd = json!({"reason": "odd"});
        for (request, payload, status, reply, holds) in [
            (end, &done, 200, ended.clone(), true),
            (end, &odd, 200, ended.clone(), false),
            (end, &Value::Null, 200, ended.clone(), false),
            (end, &done, 200, json!({"ended": "yesterday"}), false),
            (end, &done, 200, json!({}), false),
            (end, &odd, 400, refused("InputValidationError"), true),
            (end, &done, 400, refused("InputValidationError"), false),
            (end, &done, 400, refused("InputError"), true),
            (end, &done, 409, json!({"message": "m"}), false),
            ("GET /api/queue/v1/file/a/b?c=d", &Value::Null, 200, Value::Null, true),
            ("GET /api/queue/v1/file/a", &done, 200, Value::Null, false),
            ("GET /api/queue/v1/run/1/end", &Value::Null, 200, ended.clone(), false),
            ("GET /api/queue/v1/run/1/end", &Value::Null, 404, refused("ResourceNotFound"), true),
            ("GET /api/secrets/v1/secret/a", &Value::Null, 200, Value::Null, true),
        ] {
            let judged = references.exchange(request, payload, status, &reply);
            assert_eq!(judged.is_ok(), holds, "{request} {payload} {status} {reply}: {judged:?}");
        }
        assert!(references.reply("end", 200, &json!({})).is_err());
        assert!(references.reply("end", 200, &ended).is_ok());
    }

    #[test]
    fn a_file_without_an_api_is_refused() {
        for text in ["", "{}", "[]", "[{}]"] {
            assert!(References::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
