/// The token of an app that was started by hand: short enough to be read from a screen and typed.
///
/// Letters and digits that are easily taken for others are left out (I, L, O, 0, 1). Of 31 characters, eight make
/// 8.5e11 codes; an agent refuses a wrong one and closes, so that trying them is hopeless.
public enum PairingCode {
  public static let length = 8
  static let alphabet = Array("ABCDEFGHJKMNPQRSTUVWXYZ23456789")

  /// A new code. The system's generator is cryptographically secure.
  public static func make() -> String {
    var generator = SystemRandomNumberGenerator()
    return make(using: &generator)
  }

  package static func make(using generator: inout some RandomNumberGenerator) -> String {
    String((0..<length).map { _ in alphabet[Int.random(in: alphabet.indices, using: &generator)] })
  }
}
