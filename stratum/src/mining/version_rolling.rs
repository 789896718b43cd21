//! BIP 310 version rolling: mask negotiation, and the check that rolled bits stay inside the mask.

use crate::mining::error::StratumError;

/// Header version bits that miners may change (BIP 320). Jobs leave them zero, so that the three interpretations of
/// "version bits" in the field (replace, OR, XOR) give the same result.
pub const VERSION_MASK: u32 = 0x1fff_e000;

/// Mask agreed with a miner that asked for the mask `asked` (all bits if it named none); `allowed` is the part of
/// [`VERSION_MASK`] that the operator permits. `None` if no bit is left: cgminer treats an empty mask as a failed
/// `mining.configure`.
pub fn negotiate(asked: Option<u32>, allowed: u32) -> Option<u32> {
    let mask = VERSION_MASK & allowed & asked.unwrap_or(u32::MAX);
    (mask != 0).then_some(mask)
}

/// Returns the header version of a submission: `job_version` with `bits` applied.
///
/// # Errors
/// `bits` outside `mask`. Some old S9 firmware sends 0x40000000 or 0x80000000: a negative version.
pub fn apply(job_version: u32, mask: u32, bits: u32) -> Result<u32, StratumError> {
    if bits & !mask != 0 {
        return Err(StratumError::VersionBits { given: format!("{bits:08x}"), mask });
    }
    Ok((job_version & !mask) | bits)
}

/// Extracts the rolled bits from the whole version `full`; `None` if it differs from `job_version` in other bits.
///
/// Antminer S9 (bmminer) after `mining.multi_version`: sends the whole version where others send the rolled bits.
pub fn bits_of_version(job_version: u32, full: u32) -> Option<u32> {
    ((full ^ job_version) & !VERSION_MASK == 0).then_some(full & VERSION_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_what_both_sides_allow() {
        assert_eq!(negotiate(None, u32::MAX), Some(0x1fff_e000));
        assert_eq!(negotiate(Some(0xffff_ffff), u32::MAX), Some(0x1fff_e000));
        assert_eq!(negotiate(Some(0x0000_e001), u32::MAX), Some(0x0000_e000));
        assert_eq!(negotiate(Some(0x0000_0fff), u32::MAX), None);
        assert_eq!(negotiate(None, 0x00ff_0000), Some(0x00ff_0000), "an operator may allow less");
        assert_eq!(negotiate(None, 0), None);
    }

    #[test]
    fn a_whole_version_is_read_as_its_rolled_bits() {
        assert_eq!(bits_of_version(0x2000_0000, 0x2000_2000), Some(0x2000));
        assert_eq!(bits_of_version(0x2000_0000, 0x4000_2000), None);
    }

    #[test]
    fn bits_inside_the_mask_replace_and_bits_outside_are_refused() {
        assert_eq!(apply(0x2000_0000, VERSION_MASK, 0x0000_2000), Ok(0x2000_2000));
        assert_eq!(
            apply(0x2000_0000, VERSION_MASK, 0x4000_0000),
            Err(StratumError::VersionBits { given: "40000000".into(), mask: VERSION_MASK })
        );
        assert!(apply(0x2000_0000, 0, 0x2000).is_err());
    }
}
