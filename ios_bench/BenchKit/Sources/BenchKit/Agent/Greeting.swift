/// The first request of every connection: whether it is a hello, and who says it.
struct Greeting: Sendable, Equatable {
  let version: Int
  let token: String

  /// The hello in a connection's first header. Throws OpError where it is another request, or breaks its schema.
  init(header: JSON) throws {
    guard header["op"] == .string(Request.Op.hello.rawValue) else {
      throw OpError(.unauthorized, "say hello first", closes: true)
    }
    do {
      guard case .hello(let version, let token) = try Request(.hello, header: header) else {
        preconditionFailure("a hello is a hello")
      }
      self.init(version: version, token: token)
    } catch let error as OpError {
      throw OpError(error.code, error.message, closes: true)
    }
  }

  init(version: Int, token: String) {
    self.version = version
    self.token = token
  }

  /// Reason to refuse this hello; nil if it can be served. The token is checked first.
  func refusal(token secret: String) -> OpError? {
    guard isEqualInConstantTime(token, secret) else {
      return OpError(
        .unauthorized, "wrong token; take the one that the agent was started with", closes: true)
    }
    guard version == protocolVersion else {
      return OpError(
        .protocolVersion,
        "this agent speaks protocol \(protocolVersion), not \(version); "
          + "install the same version of blocktime on both sides", closes: true)
    }
    return nil
  }
}

/// Compares in a time that depends on the length of `candidate` alone.
func isEqualInConstantTime(_ candidate: String, _ secret: String) -> Bool {
  let (candidate, secret) = (Array(candidate.utf8), Array(secret.utf8))
  var difference = candidate.count ^ secret.count
  for (index, byte) in candidate.enumerated() { difference |= Int(byte ^ secret[index % secret.count]) }
  return difference == 0
}
