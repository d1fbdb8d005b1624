/// The cores of a list as Linux writes it (`4-8`, `0,2-3`), in rising order; nil where it is not one.
public func parseCores(_ list: String) -> [Int]? {
  var cores = Set<Int>()
  for part in list.split(separator: ",", omittingEmptySubsequences: false) {
    let bounds = part.split(separator: "-", omittingEmptySubsequences: false).map { bound in
      bound.utf8.allSatisfy { (48...57).contains($0) } && bound.utf8.count <= 4 ? Int(bound) : nil
    }
    guard bounds.count <= 2, let first = bounds[0], let last = bounds[bounds.count - 1], first <= last else {
      return nil
    }
    cores.formUnion(first...last)
  }
  return cores.sorted()
}

/// How many of `cores` are not little: threads on little cores hold up the others.
///
/// Little are the cores of the lowest maximal clock. Where all clocks in `highestKHz`, by core, are equal or one is
/// missing, half of the cores, at least one.
public func threadsByDefault(cores: [Int], highestKHz: [Int: Int]) -> Int {
  let clocks = cores.compactMap { highestKHz[$0] }
  let fast = clocks.count { $0 != clocks.min() }
  return clocks.count == cores.count && fast > 0 ? fast : max(1, cores.count / 2)
}
