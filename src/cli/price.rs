//! What the requests of a mount cost: how many an hour it sends, and at a price.

use std::time::Duration;

use serde::Serialize;

use crate::control::RequestReport;

/// Before a mount is this old, its requests are those of its start.
const MEASURED_MIN: Duration = Duration::from_secs(60);
/// The hours of a mean month.
const MONTH_HOURS: f64 = 730.5;
/// Requests to which a price applies.
const PRICED: f64 = 1000.0;

/// The prices of 1,000 requests, in any currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RequestPrices {
    /// Of requests that write or list: PUT and LIST.
    write: f64,
    /// Of requests that read: GET and HEAD.
    read: f64,
}

/// How many requests a mount sends, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct RequestRates {
    /// All requests in an hour, on average since the mount.
    pub(super) requests_per_hour: f64,
    /// What a month of them costs. Deletions are free.
    pub(super) cost_per_month: f64,
}

/// S3 standard in us-east-1, in US dollars.
impl Default for RequestPrices {
    fn default() -> Self {
        Self {
            write: 0.005,
            read: 0.0004,
        }
    }
}

impl RequestPrices {
    /// Returns the rates of a mount that sent `requests` in its `age`; `None` while it is too young.
    pub(super) fn rates(self, requests: &RequestReport, age: Duration) -> Option<RequestRates> {
        if age < MEASURED_MIN {
            return None;
        }
        let hours = age.as_secs_f64() / 3600.0;
        let written = (requests.put + requests.list) as f64;
        let read = (requests.get + requests.head) as f64;
        let all = written + read + requests.delete as f64;
        let cost = (written * self.write + read * self.read) / PRICED;
        Some(RequestRates {
            requests_per_hour: all / hours,
            cost_per_month: cost / hours * MONTH_HOURS,
        })
    }

    /// Describes rates for a person.
    pub(super) fn describe(self, rates: RequestRates) -> String {
        format!(
            "{:.0} requests an hour since the mount, {:.2} a month at {} for 1,000 put or list and {} for 1,000 get or head",
            rates.requests_per_hour, rates.cost_per_month, self.write, self.read
        )
    }
}

/// Reads `0.005,0.0004`: the prices of 1,000 requests that write or list, and of 1,000 that read.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn prices(text: &str) -> Result<RequestPrices, String> {
    let price = |text: &str| {
        let price: f64 = text.trim().parse().ok()?;
        (price.is_finite() && price >= 0.0).then_some(price)
    };
    let both = text.split_once(',');
    let both = both.and_then(|(write, read)| Some((price(write)?, price(read)?)));
    let (write, read) = both.ok_or_else(|| {
        "expected two prices like 0.005,0.0004: of 1,000 requests that write or list, and of 1,000 that read".to_owned()
    })?;
    Ok(RequestPrices { write, read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_an_hour_have_a_price_of_a_month() {
        let requests = RequestReport {
            put: 900,
            list: 100,
            get: 1500,
            head: 500,
            delete: 1000,
            ..RequestReport::default()
        };
        let prices = RequestPrices::default();
        assert_eq!(prices.rates(&requests, Duration::from_secs(59)), None);
        let rates = prices.rates(&requests, Duration::from_secs(1800)).unwrap();
        assert_eq!(rates.requests_per_hour, 8000.0);
        // (0.005 + 2 x 0.0004) x 2 x 730.5
        assert!((rates.cost_per_month - 8.4738).abs() < 1e-9, "{rates:?}");
        assert_eq!(
            prices.describe(rates),
            "8000 requests an hour since the mount, 8.47 a month at 0.005 for 1,000 put or list and 0.0004 for 1,000 get or head"
        );
    }

    #[test]
    fn prices_are_two_numbers() {
        let read = prices("0.01, 0").unwrap();
        assert_eq!((read.write, read.read), (0.01, 0.0));
        for wrong in ["", "1", "1,x", "-1,0", "1,inf", "1,2,3"] {
            assert!(prices(wrong).is_err(), "{wrong}");
        }
    }
}
