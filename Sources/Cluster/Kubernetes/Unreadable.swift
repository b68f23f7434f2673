/// Decodes a part of an object on its own, so that a part that makes no sense does not hide the object, nor the whole list that it
/// stands in: not being readable must never look like not being there.
func readable<Key: CodingKey, Value: Checked>(
    _ type: Value.Type, in container: KeyedDecodingContainer<Key>, _ key: Key
) -> (value: Value?, problem: String?) {
    do {
        guard let value = try container.decodeIfPresent(type, forKey: key) else { return (nil, nil) }
        try value.check()
        return (value, nil)
    } catch let error as InvalidValue {
        return (nil, "\(key.stringValue).\(error.key): \(error.problem)")
    } catch let error as DecodingError {
        return (nil, text(error))
    } catch {
        return (nil, "\(key.stringValue): is not valid")
    }
}

private func text(_ error: DecodingError) -> String {
    func path(_ keys: [any CodingKey]) -> String {
        keys.reduce(into: "") { text, key in
            if let index = key.intValue {
                text += "[\(index)]"
            } else {
                text += text.isEmpty ? key.stringValue : ".\(key.stringValue)"
            }
        }
    }
    return switch error {
    case .keyNotFound(let key, let context): "\(path(context.codingPath + [key])): is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
        "\(path(context.codingPath)): has the wrong type"
    case .dataCorrupted(let context): "\(path(context.codingPath)): \(context.debugDescription)"
    @unknown default: "is not valid"
    }
}
