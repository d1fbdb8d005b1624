import BenchKit

/// All frames of a stream with their payloads, and `end` or the code of the error that ended it.
func decode(_ bytes: [UInt8]) -> (frames: [(header: JSON, payload: [UInt8])], ends: String) {
  let stream = ByteStream(bytes)
  var frames: [(JSON, [UInt8])] = []
  do {
    while let frame = try Frame.read(from: stream) {
      let payload = try frame.payload.read()
      frames.append((frame.header, payload))
    }
    return (frames, "end")
  } catch let error as FrameError {
    return (frames, error.code.rawValue)
  } catch {
    return (frames, "\(error)")
  }
}
