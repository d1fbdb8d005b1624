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
/// Little are cores with less than half of the largest of `capacities`, by core, or of `highestKHz` where a core has no
/// capacity. Where all capacities are equal, and where no clock is that low or one is missing, half of the cores, at
/// least one.
public func threadsByDefault(cores: [Int], capacities: [Int: Int] = [:], highestKHz: [Int: Int]) -> Int {
  let measured = cores.compactMap { capacities[$0] }
  let hasCapacities = measured.count == cores.count
  let sizes = hasCapacities ? measured : cores.compactMap { highestKHz[$0] }
  let fast = sizes.count { 2 * $0 >= sizes.max() ?? 0 }
  let tells = hasCapacities ? Set(sizes).count > 1 : sizes.count == cores.count && fast < sizes.count
  return tells ? fast : max(1, cores.count / 2)
}
