//! Times in the cells of tables.

use jiff::tz::TimeZone;

/// A time with so many digits of the second and the offset of its zone, which is a TIME too: `2026-11-20 22:26:48.123+01:00`.
pub(super) fn show_time(nanoseconds: i128, digits: u8, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(nanoseconds) {
        Ok(time) => {
            let zoned = time.to_zoned(zone.clone());
            let format = format!("%Y-%m-%d %H:%M:%S%.{digits}f%:z");
            zoned.strftime(&format).to_string()
        }
        Err(_) => format!("{nanoseconds} ns"),
    }
}

/// Shows the end of something; a dash if it has none.
pub(super) fn show_until(at: Option<u64>, zone: &TimeZone) -> String {
    match at {
        Some(at) => show_time(i128::from(at), 0, zone),
        None => "-".to_owned(),
    }
}
