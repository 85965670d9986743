//! The API's description, made from the table that also makes the router.

use axum::Json;
use serde_json::{Map, Value, json};

use super::{Access, Endpoint, endpoints};
use crate::access::roles;

pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

/// The OpenAPI 3.1 document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints() {
        let entry = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        entry[endpoint.method] = operation(&endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weft operator API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the CLI and the dashboard use, and nothing else."
        },
        "paths": paths,
        "components": { "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } }, "schemas": schemas() },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut parameters: Vec<Value> = endpoint
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(endpoint.query.iter().map(|(name, meaning)| {
        json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": "string" } })
    }));
    let error = json!({ "description": "The answer is no", "content": json_of("Error") });
    let mut operation = json!({
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": { "200": { "description": "Done" }, "default": error },
    });
    if let Access::Mesh(verb, thing) | Access::Each(verb, thing) = endpoint.access {
        let names: Vec<_> = roles(verb, thing).iter().map(|role| role.as_str()).collect();
        let place = match endpoint.access {
            Access::Each(..) => "within the namespaces of the token",
            Access::Public | Access::Mesh(..) => "for the whole mesh",
        };
        operation["security"] = json!([{ "bearer": [] }]);
        operation["description"] = json!(format!("Needs the role {}, {place}.", names.join(", ")));
    }
    if let Some(body) = endpoint.body {
        operation["requestBody"] = match body {
            "Snapshot" => json!({ "required": true, "content": { "application/octet-stream": {} } }),
            "Wasm" => json!({ "required": true, "content": { "application/wasm": {} } }),
            schema => json!({ "required": true, "content": json_of(schema) }),
        };
    }
    operation
}

fn json_of(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer" });
    json!({
        "Error": { "type": "object", "required": ["error"], "properties": { "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": { "code": text, "message": text, "details": { "type": "array", "items": {
                "type": "object",
                "properties": { "file": text, "line": number, "key": text, "message": text,
                    "document": { "type": "integer", "description": "the request's document, from 0" },
                    "object": { "type": "object", "properties": { "kind": text, "namespace": text, "name": text } } }
            } } }
        } } },
        "Apply": { "type": "object", "required": ["documents"], "properties": {
            "documents": { "type": "array", "items": { "type": "object" } },
            "dry_run": { "type": "boolean", "default": false },
            "force": { "type": "boolean", "default": false, "description": "also where it takes protection away" },
            "if_unchanged": { "type": "boolean", "default": false,
                "description": "only where each object is of the metadata.revision that its document tells; else 409" }
        } },
        "Lint": { "type": "object", "required": ["documents"], "properties": {
            "documents": { "type": "array", "items": { "type": "object" } }
        } },
        "Explain": { "type": "object", "required": ["from", "to"], "properties": {
            "from": { "type": "string", "description": "namespace/service-account" },
            "to": { "type": "string", "description": "service or service.namespace" },
            "port": number,
            "method": { "type": "string", "default": "GET" },
            "path": { "type": "string", "default": "/" },
            "headers": { "type": "object", "additionalProperties": text }
        } },
        "Ban": { "type": "object", "required": ["proxy"], "properties": {
            "proxy": { "type": "string", "description": "a proxy's name, or a SPIFFE ID" },
            "reason": text
        } },
        "CreateToken": { "type": "object", "required": ["kind"], "properties": {
            "kind": { "enum": ["join", "operator"] },
            "name": { "type": "string", "description": "what to call it" },
            "service_account": { "type": "string", "description": "join: namespace/service-account" },
            "role": { "enum": ["viewer", "operator", "publisher", "admin"] },
            "namespaces": { "type": "array", "items": text, "description": "operator: what it is for; all where absent" },
            "ttl_seconds": number,
            "uses": number,
            "services": { "type": "array", "items": text, "description": "join: services it may stand behind" },
            "labels": { "type": "array", "items": text, "description": "join: KEY=VALUE by which it may be selected" },
            "addresses": { "type": "array", "items": text, "description": "join: ranges its workloads may be in" }
        } },
    })
}
