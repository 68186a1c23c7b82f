//! For each tenant an authenticated client with a token of its own; beneath them all one HTTP client.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use http::{HeaderName, Request, Response};
use http_body::Body;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_symbl_auth::{ReplayBody, SymblAuth, SymblAuthLayer};

/// Names the tenant that a request is for. Let nobody set it but who has authenticated the caller.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// So many tenants at most. For another one the one goes whose last request was longest ago: its token is fetched
/// anew when it comes back, and the requests it has under way end as they would have.
pub(crate) struct Tenants<C> {
    client: C,
    layer_of: LayerOf,
    at_most: usize,
    known: Mutex<Known<C>>,
}

type LayerOf = Box<dyn Fn(&str) -> Option<SymblAuthLayer> + Send + Sync>;

struct Known<C> {
    /// Each with the number of its last request.
    clients: HashMap<String, (SymblAuth<C>, u64)>,
    requests: u64,
}

impl<C: Clone> Tenants<C> {
    /// `layer_of` makes a tenant's layer, with credentials from wherever they are kept; `None` if there is no such tenant.
    pub(crate) fn new(
        at_most: usize,
        client: C,
        layer_of: impl Fn(&str) -> Option<SymblAuthLayer> + Send + Sync + 'static,
    ) -> Self {
        Self {
            client,
            layer_of: Box::new(layer_of),
            at_most,
            known: Mutex::new(Known {
                clients: HashMap::new(),
                requests: 0,
            }),
        }
    }

    /// The client of a tenant. Under one lock, so that two first requests share one layer, and one token fetch.
    pub(crate) fn client(&self, tenant: &str) -> Option<SymblAuth<C>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.requests += 1;
        let number = known.requests;
        if let Some((client, last)) = known.clients.get_mut(tenant) {
            *last = number;
            return Some(client.clone());
        }
        let client = (self.layer_of)(tenant)?.layer(self.client.clone());
        if known.clients.len() >= self.at_most {
            let oldest = known.clients.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(tenant, _)| tenant.clone()) {
                known.clients.remove(&oldest);
            }
        }
        let tenant = tenant.to_owned();
        known.clients.insert(tenant, (client.clone(), number));
        Some(client)
    }

    /// Sends a request with the token of the tenant that its header names.
    pub(crate) async fn send<B, R>(&self, mut request: Request<B>) -> Result<Response<R>, BoxError>
    where
        C: Service<Request<ReplayBody<B>>, Response = Response<R>>,
        C::Error: Into<BoxError>,
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let tenant = request.headers_mut().remove(TENANT);
        let tenant = tenant.as_ref().and_then(|tenant| tenant.to_str().ok());
        let client = tenant.and_then(|tenant| self.client(tenant));
        let client = client.ok_or("there is no such tenant")?;
        client.oneshot(request).await
    }

    pub(crate) fn known(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clients.len()
    }
}
