//! The trait of a filter, and the views it is shown. Each hook has a default: implement those you ask for.

use crate::bindings::weft::filter::types::{Attributes, Header, Interest, Outcome, RequestHead, ResponseHead, Summary};

/// A filter under one configuration. One instance serves one worker thread; its calls never overlap.
pub trait Filter: Sized + 'static {
    /// Reads the configuration (JSON, the FilterPolicy's `config`) and says what the filter wants to be called for and
    /// to see. An error refuses the configuration and tells the operator why.
    fn configure(config: &str) -> Result<(Self, Interest), String>;

    /// An opaque byte stream (TCP) is about to be opened. Edits have no effect here.
    fn connection(&mut self, stream: u64, connection: &Connection<'_>) -> Outcome {
        let _ = (stream, connection);
        Outcome::pass()
    }

    fn request_head(&mut self, stream: u64, request: &Request<'_>) -> Outcome {
        let _ = (stream, request);
        Outcome::pass()
    }

    fn response_head(&mut self, stream: u64, response: &Response<'_>) -> Outcome {
        let _ = (stream, response);
        Outcome::pass()
    }

    /// The stream is over; drop what was kept for it.
    fn done(&mut self, stream: u64, summary: &Summary) {
        let _ = (stream, summary);
    }
}

/// A byte stream to judge: what the interest asked for of it.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    pub attributes: &'a Attributes,
}

/// A request's head: what the interest asked for of it, the rest is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub head: &'a RequestHead,
    pub attributes: &'a Attributes,
    names: &'a [String],
}

/// A final response's head.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    pub head: &'a ResponseHead,
    names: &'a [String],
}

impl<'a> Request<'a> {
    /// The first value of a header that the interest named, in lower case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every field shown, in order of the interest's names and then of arrival.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        named(self.names, &self.head.headers)
    }
}

impl<'a> Response<'a> {
    /// The first value of a header that the interest named, in lower case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Every field shown, in order of the interest's names and then of arrival.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        named(self.names, &self.head.headers)
    }
}

fn named<'a>(names: &'a [String], headers: &'a [Header]) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
    headers.iter().filter_map(|header| {
        let name = names.get(usize::from(header.name))?;
        Some((name.as_str(), header.value.as_slice()))
    })
}

/// A filter with the names it asked for. The two sides of the sandbox's border, and the test harness, call this.
#[derive(Debug)]
pub struct Configured<F> {
    pub filter: F,
    request_headers: Vec<String>,
    response_headers: Vec<String>,
}

impl<F: Filter> Configured<F> {
    pub fn new(config: &str) -> Result<(Self, Interest), String> {
        let (filter, interest) = F::configure(config)?;
        let (request_headers, response_headers) = (interest.request_headers.clone(), interest.response_headers.clone());
        Ok((Self { filter, request_headers, response_headers }, interest))
    }

    pub fn connection(&mut self, stream: u64, attributes: &Attributes) -> Outcome {
        self.filter.connection(stream, &Connection { attributes })
    }

    pub fn request_head(&mut self, stream: u64, head: &RequestHead, attributes: &Attributes) -> Outcome {
        self.filter.request_head(stream, &Request { head, attributes, names: &self.request_headers })
    }

    pub fn response_head(&mut self, stream: u64, head: &ResponseHead) -> Outcome {
        self.filter.response_head(stream, &Response { head, names: &self.response_headers })
    }

    pub fn done(&mut self, stream: u64, summary: &Summary) {
        self.filter.done(stream, summary);
    }
}

/// Makes a component of a [`Filter`]: put it once at the end of a filter's crate. On other targets it does nothing.
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "generated: the component ABI is raw memory")]
        const _: () = {
            use $crate::bindings::{Guest, export};

            ::std::thread_local! {
                static FILTER: ::std::cell::RefCell<Option<$crate::Configured<$filter>>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            fn with<R>(call: impl FnOnce(&mut $crate::Configured<$filter>) -> R) -> R {
                FILTER.with_borrow_mut(|filter| call(filter.as_mut().expect("the host configures first")))
            }

            struct Component;

            impl Guest for Component {
                fn configure(config: String) -> Result<$crate::Interest, String> {
                    let (filter, interest) = $crate::Configured::new(&config)?;
                    FILTER.set(Some(filter));
                    Ok(interest)
                }

                fn on_connection(stream: u64, attributes: $crate::Attributes) -> $crate::Outcome {
                    with(|filter| filter.connection(stream, &attributes))
                }

                fn on_request_head(
                    stream: u64,
                    head: $crate::RequestHead,
                    attributes: $crate::Attributes,
                ) -> $crate::Outcome {
                    with(|filter| filter.request_head(stream, &head, &attributes))
                }

                fn on_response_head(stream: u64, head: $crate::ResponseHead) -> $crate::Outcome {
                    with(|filter| filter.response_head(stream, &head))
                }

                fn on_done(stream: u64, summary: $crate::Summary) {
                    with(|filter| filter.done(stream, &summary));
                }
            }

    export!(Component with_types_in $crate::bindings);
        };
    };
}
