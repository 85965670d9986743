//! The reference of the contract, docs/filters/reference.md, is made of filter.wit: what stands there for authors stands here.
//! `WEFT_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use wit_parser::{
    Docs, Function, Interface, InterfaceId, Resolve, Type, TypeDefKind, TypeId, World, WorldItem, WorldKey,
};

const HEAD: &str = "# Reference of the contract 0.2\n\n\
    Made of [filter.wit](../../filters-sdk/wit/0.2/filter.wit). What each hook may say, and what the proxy does for it: \
    [running.md](running.md) and [bodies-and-callouts.md](bodies-and-callouts.md); values: [values.md](values.md); what the \
    policy grants: [capabilities.md](capabilities.md).\n";

#[test]
fn the_reference_says_what_the_contract_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("filters-sdk/wit/0.2")).unwrap();
    let package = &resolve.packages[package];
    let worlds: Vec<&World> = package.worlds.values().map(|world| &resolve.worlds[*world]).collect();
    let (exported, imported) = (interfaces(&worlds, |it| &it.exports), interfaces(&worlds, |it| &it.imports));
    let mut page = Page { resolve: &resolve, text: HEAD.to_owned() };
    page.paragraph(&package.docs);
    for (title, interfaces) in [("What a filter exports", exported), ("What it may import", imported)] {
        writeln!(page.text, "\n## {title}").unwrap();
        interfaces.into_iter().for_each(|id| page.interface(&resolve.interfaces[id]));
    }
    page.text.push_str("\n## Worlds\n");
    for world in worlds {
        writeln!(page.text, "\n### `{}`", world.name).unwrap();
        page.paragraph(&world.docs);
    }
    let path = root.join("docs/filters/reference.md");
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&path, &page.text).unwrap();
    }
    let told = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(told == page.text, "{} is not what filter.wit says; WEFT_BLESS=1 writes it", path.display());
}

/// Those of all worlds, each once, in the order in which the worlds have them.
fn interfaces(
    worlds: &[&World],
    of: impl for<'w> Fn(&'w World) -> &'w wit_parser::IndexMap<WorldKey, WorldItem>,
) -> Vec<InterfaceId> {
    let mut all = Vec::new();
    for world in worlds {
        for item in of(world).values() {
            let WorldItem::Interface { id, .. } = item else { panic!("the contract has interfaces only") };
            if !all.contains(id) {
                all.push(*id);
            }
        }
    }
    all
}

struct Page<'r> {
    resolve: &'r Resolve,
    text: String,
}

impl Page<'_> {
    fn paragraph(&mut self, docs: &Docs) {
        if let Some(docs) = &docs.contents {
            writeln!(self.text, "\n{}", docs.trim_end()).unwrap();
        }
    }

    fn interface(&mut self, interface: &Interface) {
        writeln!(self.text, "\n### `{}`", interface.name.as_deref().unwrap()).unwrap();
        self.paragraph(&interface.docs);
        for (name, id) in &interface.types {
            self.definition(name, *id);
        }
        for function in interface.functions.values() {
            writeln!(self.text, "\n`{}`", self.signature(function)).unwrap();
            self.paragraph(&function.docs);
        }
    }

    /// A type that is defined here; one that is used from elsewhere is told there.
    fn definition(&mut self, name: &str, id: TypeId) {
        let resolve = self.resolve;
        let definition = &resolve.types[id];
        if matches!(definition.kind, TypeDefKind::Type(Type::Id(other)) if resolve.types[other].name.as_deref() == Some(name))
        {
            return;
        }
        let Some((kind, items)) = self.items(&definition.kind) else {
            writeln!(self.text, "\n**type `{name}`** = `{}`", self.kind(&definition.kind)).unwrap();
            return self.paragraph(&definition.docs);
        };
        writeln!(self.text, "\n**{kind} `{name}`**").unwrap();
        self.paragraph(&definition.docs);
        self.text.push('\n');
        for (item, docs) in items {
            let docs = docs.contents.as_deref().map(|docs| format!(": {}", docs.trim_end().replace('\n', "\n  ")));
            writeln!(self.text, "* `{item}`{}", docs.unwrap_or_default()).unwrap();
        }
    }

    /// What a type of several items is called, and these.
    fn items<'k>(&self, kind: &'k TypeDefKind) -> Option<(&'static str, Vec<(String, &'k Docs)>)> {
        if let TypeDefKind::Record(record) = kind {
            let field = |field: &wit_parser::Field| format!("{}: {}", field.name, self.type_of(&field.ty));
            Some(("record", record.fields.iter().map(|it| (field(it), &it.docs)).collect()))
        } else if let TypeDefKind::Variant(variant) = kind {
            let payload = |ty: &Type| format!("({})", self.type_of(ty));
            let case = |it: &wit_parser::Case| it.name.clone() + &it.ty.as_ref().map(payload).unwrap_or_default();
            Some(("variant", variant.cases.iter().map(|it| (case(it), &it.docs)).collect()))
        } else if let TypeDefKind::Enum(words) = kind {
            Some(("enum", words.cases.iter().map(|it| (it.name.clone(), &it.docs)).collect()))
        } else {
            None
        }
    }

    fn signature(&self, function: &Function) -> String {
        let params = function.params.iter().map(|param| format!("{}: {}", param.name, self.type_of(&param.ty)));
        let result = function.result.as_ref().map(|ty| format!(" -> {}", self.type_of(ty)));
        let params: Vec<_> = params.collect();
        format!("{}({}){}", function.name, params.join(", "), result.unwrap_or_default())
    }

    fn type_of(&self, ty: &Type) -> String {
        let word = match ty {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::ErrorContext => "error-context",
            Type::Id(id) => {
                let definition = &self.resolve.types[*id];
                return definition.name.clone().unwrap_or_else(|| self.kind(&definition.kind));
            }
        };
        word.to_owned()
    }

    /// A type without a name.
    fn kind(&self, kind: &TypeDefKind) -> String {
        let maybe = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), |ty| self.type_of(ty));
        match kind {
            TypeDefKind::Option(ty) => format!("option<{}>", self.type_of(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.type_of(ty)),
            TypeDefKind::Result(result) => format!("result<{}, {}>", maybe(&result.ok), maybe(&result.err)),
            TypeDefKind::Type(ty) => self.type_of(ty),
            TypeDefKind::Record(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Resource
            | TypeDefKind::Handle(_)
            | TypeDefKind::Flags(_)
            | TypeDefKind::Tuple(_)
            | TypeDefKind::Map(..)
            | TypeDefKind::FixedLengthList(..)
            | TypeDefKind::Future(_)
            | TypeDefKind::Stream(_)
            | TypeDefKind::Unknown => panic!("a type that the reference does not tell: {}", kind.as_str()),
        }
    }
}
