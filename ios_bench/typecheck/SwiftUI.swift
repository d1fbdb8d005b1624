// What the app uses of SwiftUI (iOS 17), declared as in Apple's documentation with fewer generics; it draws
// nothing. For type checks on Linux.
@_exported import Foundation
@_exported import Observation

@MainActor @preconcurrency
public protocol View {
  associatedtype Body: View
  @ViewBuilder var body: Body { get }
}

public struct EmptyView: View {
  public var body: Never { fatalError() }
}

extension Never: View {
  public var body: Never { fatalError() }
}

extension Optional: View where Wrapped: View {
  public var body: Never { fatalError() }
}

public struct TupleView<Content>: View {
  public var body: Never { fatalError() }
}

public struct EitherView<First: View, Second: View>: View {
  public var body: Never { fatalError() }
}

@resultBuilder
public enum ViewBuilder {
  public static func buildBlock() -> EmptyView { EmptyView() }
  public static func buildBlock<Content: View>(_ content: Content) -> Content { content }
  public static func buildBlock<each Content: View>(_ content: repeat each Content) -> TupleView<
    (repeat each Content)
  > {
    TupleView()
  }
  public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
  public static func buildEither<First: View, Second: View>(first: First) -> EitherView<First, Second> {
    EitherView()
  }
  public static func buildEither<First: View, Second: View>(second: Second) -> EitherView<First, Second> {
    EitherView()
  }
}

@MainActor @preconcurrency
public protocol Scene {
  associatedtype Body: Scene
  var body: Body { get }
}

extension Never: Scene {}

@MainActor @preconcurrency
public protocol App {
  associatedtype Body: Scene
  var body: Body { get }
  init()
}

extension App {
  public static func main() {}
}

public struct WindowGroup<Content: View>: Scene {
  public init(@ViewBuilder content: () -> Content) {}
  public var body: Never { fatalError() }
}

@propertyWrapper
public struct State<Value> {
  public init(wrappedValue: Value) { value = wrappedValue }
  public init(initialValue: Value) { value = initialValue }
  public var wrappedValue: Value {
    get { value }
    nonmutating set {}
  }
  public var projectedValue: Binding<Value> { Binding() }
  private let value: Value
}

public struct EnvironmentValues {
  public var scenePhase: ScenePhase { .active }
}

public enum ScenePhase: Sendable {
  case background, inactive, active
}

@propertyWrapper
public struct Environment<Value> {
  public init(_ keyPath: KeyPath<EnvironmentValues, Value>) {
    wrappedValue = EnvironmentValues()[keyPath: keyPath]
  }
  public let wrappedValue: Value
}

@dynamicMemberLookup
public struct Binding<Value> {
  public subscript<Subject>(dynamicMember keyPath: WritableKeyPath<Value, Subject>) -> Binding<Subject> {
    Binding<Subject>()
  }
}

@propertyWrapper @dynamicMemberLookup
public struct Bindable<Value: AnyObject & Observable> {
  public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
  public var wrappedValue: Value
  public var projectedValue: Bindable<Value> { self }
  public subscript<Subject>(dynamicMember keyPath: ReferenceWritableKeyPath<Value, Subject>) -> Binding<
    Subject
  > {
    Binding<Subject>()
  }
}

public struct Text: View {
  public init<Content: StringProtocol>(_ content: Content) {}
  public func bold() -> Text { self }
  public var body: Never { fatalError() }
}

public struct Label: View {
  public init<Title: StringProtocol>(_ title: Title, systemImage: String) {}
  public var body: Never { fatalError() }
}

public struct LabeledContent: View {
  public init<Title: StringProtocol, Value: StringProtocol>(_ title: Title, value: Value) {}
  public var body: Never { fatalError() }
}

public struct ContentUnavailableView: View {
  public init(_ title: String, systemImage: String, description: Text? = nil) {}
  public var body: Never { fatalError() }
}

/// Of Foundation, which Linux lacks.
extension URL {
  public func startAccessingSecurityScopedResource() -> Bool { false }
  public func stopAccessingSecurityScopedResource() {}
}

public struct Button: View {
  @preconcurrency
  public init<Title: StringProtocol>(_ title: Title, action: @escaping @MainActor () -> Void) {}
  public var body: Never { fatalError() }
}

/// Of UniformTypeIdentifiers, which SwiftUI hands on.
public struct UTType: Sendable {
  public static var data: UTType { UTType() }
}

public struct Toggle: View {
  public init<Title: StringProtocol>(_ title: Title, isOn: Binding<Bool>) {}
  public var body: Never { fatalError() }
}

public struct DisclosureGroup<Content: View>: View {
  public init<Title: StringProtocol>(_ title: Title, @ViewBuilder content: @escaping () -> Content) {}
  public var body: Never { fatalError() }
}

public enum HorizontalAlignment: Sendable {
  case leading, center, trailing
}

public struct VStack<Content: View>: View {
  public init(
    alignment: HorizontalAlignment = .center, spacing: Double? = nil, @ViewBuilder content: () -> Content
  ) {}
  public var body: Never { fatalError() }
}

public struct NavigationStack<Content: View>: View {
  public init(@ViewBuilder root: () -> Content) {}
  public var body: Never { fatalError() }
}

public struct List<Content: View>: View {
  public init(@ViewBuilder content: () -> Content) {}
  public var body: Never { fatalError() }
}

public struct Section<Content: View>: View {
  public init<Title: StringProtocol>(_ title: Title, @ViewBuilder content: () -> Content) {}
  public init<Header: View, Footer: View>(
    @ViewBuilder content: () -> Content, @ViewBuilder header: () -> Header, @ViewBuilder footer: () -> Footer
  ) {}
  public var body: Never { fatalError() }
}

public struct ForEach<Data: RandomAccessCollection, Content: View>: View {
  public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content)
  where Data.Element: Identifiable {}
  public init<ID: Hashable>(
    _ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content
  ) {}
  public var body: Never { fatalError() }
}

public struct Font: Sendable {
  public enum TextStyle: Sendable {
    case largeTitle, body
  }
  public enum Design: Sendable {
    case `default`, monospaced
  }
  public static func system(_ style: TextStyle, design: Design? = nil) -> Font { Font() }
}

public struct HierarchicalShapeStyle: Sendable {}

extension HierarchicalShapeStyle {
  public static var secondary: HierarchicalShapeStyle { .init() }
}

public struct EnabledTextSelectability: Sendable {}

extension EnabledTextSelectability {
  public static var enabled: EnabledTextSelectability { .init() }
}

extension View {
  public func disabled(_ disabled: Bool) -> some View { self }
  public func fileImporter(
    isPresented: Binding<Bool>, allowedContentTypes: [UTType],
    onCompletion: @escaping (Result<URL, any Error>) -> Void
  ) -> some View { self }
  public func font(_ font: Font?) -> some View { self }
  public func bold() -> some View { self }
  public func monospacedDigit() -> some View { self }
  public func foregroundStyle(_ style: HierarchicalShapeStyle) -> some View { self }
  public func textSelection(_ selectability: EnabledTextSelectability) -> some View { self }
  public func accessibilityLabel<Label: StringProtocol>(_ label: Label) -> some View { self }
  public func navigationTitle<Title: StringProtocol>(_ title: Title) -> some View { self }
  public func onChange<Value: Equatable>(
    of value: Value, initial: Bool = false, _ action: @escaping (Value, Value) -> Void
  ) -> some View { self }
  public func task(
    priority: TaskPriority = .userInitiated,
    @_inheritActorContext _ action: @escaping @Sendable () async -> Void
  ) -> some View { self }
}
