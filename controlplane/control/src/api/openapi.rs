//! The API's description, made of the table that also makes the router, and of the types that handlers take and give.

use axum::Json;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{IntoParams, ToSchema};
use weft_api::ErrorBody;

use super::{Access, Endpoint, endpoints};
use crate::access::roles;

const JSON: &str = "application/json";

/// One operation as it is described, and the schemas that it refers to.
pub(super) struct Described {
    operation: OperationBuilder,
    schemas: Vec<(String, RefOr<Schema>)>,
}

pub(super) async fn serve() -> Json<OpenApi> {
    Json(document())
}

/// The OpenAPI 3.1 document.
pub(super) fn document() -> OpenApi {
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let mut components = ComponentsBuilder::new().security_scheme("bearer", bearer);
    let mut paths = Paths::new();
    for Endpoint { method, path, described: Described { operation, schemas }, .. } in endpoints() {
        paths.add_path_operation(path, vec![method], operation);
        components = components.schemas_from_iter(schemas);
    }
    let info = InfoBuilder::new()
        .title("Weft operator API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("What the CLI and the dashboard use, and nothing else."));
    OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(components.build())).build()
}

impl Described {
    pub(super) fn new(path: &str, access: Access, summary: &str) -> Self {
        let places = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut operation = OperationBuilder::new().summary(Some(summary)).parameters(Some(places.map(place)));
        if let Access::Mesh(verb, thing) | Access::Each(verb, thing) = access {
            let names: Vec<_> = roles(verb, thing).iter().map(|role| role.as_str()).collect();
            let reach = match access {
                Access::Each(..) => "within the namespaces of the token",
                Access::Public | Access::Mesh(..) => "for the whole mesh",
            };
            operation = operation
                .description(Some(format!("Needs the role {}, {reach}.", names.join(", "))))
                .security(SecurityRequirement::new("bearer", std::iter::empty::<String>()));
        }
        let mut described = Self { operation, schemas: Vec::new() };
        let error = described.reference::<ErrorBody>();
        described.gives("default", "The answer is no", JSON, error)
    }

    pub(super) fn query<Q: IntoParams>(mut self) -> Self {
        self.operation = self.operation.parameters(Some(Q::into_params(|| Some(ParameterIn::Query))));
        self
    }

    pub(super) fn header(mut self, name: &str, meaning: &str, required: Required) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(required);
        let parameter =
            parameter.description(Some(meaning)).schema(Some(ObjectBuilder::new().schema_type(Type::String)));
        self.operation = self.operation.parameter(parameter);
        self
    }

    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        let schema = self.reference::<T>();
        self.body(JSON, schema)
    }

    pub(super) fn takes_bytes(self, media: &str) -> Self {
        self.body(media, bytes())
    }

    pub(super) fn answers<T: ToSchema>(mut self) -> Self {
        let schema = self.reference::<T>();
        self.gives("200", "Done", JSON, schema)
    }

    pub(super) fn answers_bytes(self, media: &str) -> Self {
        self.gives("200", "Done", media, bytes())
    }

    pub(super) fn answers_text(self, status: &str, meaning: &str) -> Self {
        self.gives(status, meaning, "text/plain", ObjectBuilder::new().schema_type(Type::String).into())
    }

    /// Some JSON object.
    pub(super) fn answers_object(self) -> Self {
        self.gives("200", "Done", JSON, ObjectBuilder::new().schema_type(Type::Object).into())
    }

    fn body(mut self, media: &str, schema: RefOr<Schema>) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().content(media, content).required(Some(Required::True));
        self.operation = self.operation.request_body(Some(body.build()));
        self
    }

    fn gives(mut self, status: &str, meaning: &str, media: &str, schema: RefOr<Schema>) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(meaning).content(media, content);
        self.operation = self.operation.response(status, response);
        self
    }

    /// A reference to the schema of a type, which is kept with those that it refers to.
    fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name();
        self.schemas.push((name.to_string(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(name))
    }
}

/// A parameter of the path.
fn place(name: &str) -> Parameter {
    let schema = match name {
        "revision" => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0)),
        _ => ObjectBuilder::new().schema_type(Type::String),
    };
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    parameter.schema(Some(schema)).build()
}

fn bytes() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}
