//! Keys that everybody can look up: the private halves are printed in standards, documentation and
//! test suites, so a token that one of them signed proves nothing.
//!
//! Harbor shipped such a key (GHSA-j7jh-fmcm-xxwv). What is kept here is the RFC 7638 thumbprint of
//! each public half, and where the private one is printed.

/// Thumbprint and source, for P-256 and Ed25519.
const PUBLISHED: [(&str, &str); 14] = [
    ("oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", "RFC 7515, appendix A.3"),
    ("cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s", "RFC 7517, appendix A.2"),
    ("_GK0r6GCoJt9zcssg9lay4obIxgCq05ntiRymRHADSU", "RFC 7518, appendix C (Alice)"),
    ("Vy57XrArUrW0NbpI12tEzDHABxMwrTh6HHXRenSpnCo", "RFC 7518, appendix C (Bob)"),
    ("DOvxvJiAdIqVWIkFt5hDtCunXLF0BV4-JGv4f-ALSm0", "RFC 6979, appendix A.2.5"),
    ("ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI", "RFC 9421, appendix B.1.3"),
    ("19J8y7Zprt2-QKLjF2I5pVk0OELX6cY2AfaAv1LC_w8", "the examples of jwt.io"),
    ("-9POkGtActRbSCWs9KxiRwNy9VUrlacyHGd_tqbVDnk", "the tests of jsonwebtoken (P-256)"),
    ("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "RFC 8037, appendix A, and RFC 8032"),
    ("FtIu-VbGrfe_KB6CH7GNwODB72MNxj_ml11dEvO-7kk", "RFC 8032, section 7.1 (TEST 2)"),
    ("FVV5umTuau890q59V-4Ga_R6qWb7ON_ivJc4EjvCwTM", "RFC 8032, section 7.1 (TEST 3)"),
    ("lZI1vM7tnlYapaF5-cy86ptx0tT_8Av721hhiNB5ti4", "RFC 8032, section 7.1 (TEST 1024)"),
    ("poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U", "RFC 9421, appendix B.1.4"),
    ("1F9OrfU2oTuQwsjXs5w-DT99L2hKF4I7IpEJPIg78BA", "the tests of jsonwebtoken (Ed25519)"),
];

/// Where the private half of the key with this thumbprint is printed, if it is.
pub(super) fn published_in(thumbprint: &str) -> Option<&'static str> {
    PUBLISHED.iter().find(|(known, _)| *known == thumbprint).map(|(_, source)| *source)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use berth_shared::clock::{Clock, UnixSeconds};

    use super::*;
    use crate::keys::{KeyAlgorithm, KeyError, KeyIds, Settings, SigningKeys, pair::pem};

    /// Private half and public half (x, y) as the source prints them.
    const ES256: [(&str, &str, &str); 8] = [
        (
            "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        ),
        (
            "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
            "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        ),
        (
            "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo",
            "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
            "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
        ),
        (
            "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
            "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
            "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
        ),
        (
            "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE",
            "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
            "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
        ),
        (
            "UpuF81l-kOxbjf7T4mNSv0r5tN67Gim7rnf6EFpcYDs",
            "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA",
            "Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0",
        ),
        (
            "evZzL1gdAFr88hb2OF_2NxApJCzGCEDdfSp6VQO30hw",
            "EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84",
            "kGe5DgSIycKp8w9aJmoHhB1sB3QTugfnRWm5nU_TzsY",
        ),
        (
            "WTFfCGljY6aw3HrtkHmPRiazukxPLb6ilpRAewjW8ng",
            "w7JAoU_gJbZJvV-zCOvU9yFJq0FNC_edCMRM78P8eQQ",
            "wQg1EytcsEmGrM70Gb53oluoDbVhCZ3Uq3hHMslHVb4",
        ),
    ];

    const EDDSA: [(&str, &str); 6] = [
        (
            "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        ),
        (
            "TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs",
            "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw",
        ),
        (
            "xaqN9D-fg3vtt0QvMdy3sWbThTUHbwlLhc46LgtEWPc",
            "_FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU",
        ),
        (
            "9eV2fPFTMZUXYw8iaHa4bIFgzFg7wBN0TGvyVfXMDuU",
            "J4EX_BRMcjQPZ9DyMW6Dhs7_vyskKMnFH-98WX8dQm4",
        ),
        (
            "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU",
            "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs",
        ),
        (
            "asP97u4pipJji3AMSxF8wy4tKs4N_Xh2lOJMrorVgjQ",
            "2-Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8",
        ),
    ];

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// PKCS#8 with the public half inside (RFC 5915, RFC 8410).
    pub(in crate::keys) fn pkcs8() -> Vec<(KeyAlgorithm, Vec<u8>)> {
        let es256 = ES256.map(|(d, x, y)| {
            let head = b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\
                \x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
            let middle = b"\xa1\x44\x03\x42\x00\x04";
            let der = [&head[..], &bytes(d), middle, &bytes(x), &bytes(y)].concat();
            (KeyAlgorithm::Es256, der)
        });
        let eddsa = EDDSA.map(|(d, x)| {
            let head = b"\x30\x53\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
            let der = [&head[..], &bytes(d), b"\xa1\x23\x03\x21\x00", &bytes(x)].concat();
            (KeyAlgorithm::EdDsa, der)
        });
        es256.into_iter().chain(eddsa).collect()
    }

    #[test]
    fn known_sample_keys_are_refused_and_a_new_key_takes_their_place() {
        let keys = pkcs8();
        assert_eq!(keys.len(), PUBLISHED.len());
        for (index, (algorithm, der)) in keys.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let directory = dir.path().join("keys");
            fs::create_dir(&directory).unwrap();
            let name = if algorithm == KeyAlgorithm::Es256 { "es256-5.pem" } else { "eddsa-5.pem" };
            let file = directory.join(name);
            let ids = KeyIds::default();
            let settings =
                Settings { directory, sealed_with: None, algorithm, ids, token_life_secs: 900 };
            fs::write(&file, pem(&der).as_bytes()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let error =
                SigningKeys::open(&settings, &Clock::set(UnixSeconds::new(9))).err().unwrap();
            assert!(matches!(error, KeyError::Published { .. }), "{index}: {error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("remove the file"), "{text}");
            assert!(text.contains(PUBLISHED[index].1), "{text}");
            fs::remove_file(&file).unwrap();
            SigningKeys::open(&settings, &Clock::set(UnixSeconds::new(9))).unwrap();
        }
    }
}
