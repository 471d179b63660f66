using System.Text.Json;

namespace MicroVm.Json;

/// <summary>
/// Reads the values of a document one by one, and refuses those of another type. It stands on a token: on a value, or on a member's name.
/// </summary>
internal ref struct JsonValueReader
{
    private const string WrongType = "the value has the wrong type or is out of range";
    private Utf8JsonReader _json;

    /// <summary>Begins with the document's value.</summary>
    internal JsonValueReader(ReadOnlySpan<byte> json)
    {
        _json = new Utf8JsonReader(json);
        Next();
    }

    private readonly bool IsNull => _json.TokenType == JsonTokenType.Null;

    private readonly bool IsNumber => _json.TokenType == JsonTokenType.Number;

    /// <summary>The document has no further value.</summary>
    internal void End() => Require(!_json.Read());

    /// <summary>Moves from a member's name to its value when the name is this one.</summary>
    internal bool TryEnter(ReadOnlySpan<byte> name)
    {
        if (!_json.ValueTextEquals(name))
        {
            return false;
        }

        Next();
        return true;
    }

    /// <summary>A member's name, from which the reader moves on to the value.</summary>
    internal string Key()
    {
        string name = _json.GetString()!;
        Next();
        return name;
    }

    /// <summary>Passes a member over, from its name to the end of its value.</summary>
    internal void SkipMember()
    {
        Next();
        _json.Skip();
    }

    /// <summary>The value is an array, not null.</summary>
    internal readonly bool BeginsArray() => !IsNull && Required(_json.TokenType == JsonTokenType.StartArray);

    /// <summary>The value is an object, not null.</summary>
    internal readonly bool BeginsObject() => !IsNull && Required(_json.TokenType == JsonTokenType.StartObject);

    /// <summary>Moves to an array's next value; false at its end.</summary>
    internal bool NextElement()
    {
        Next();
        return _json.TokenType != JsonTokenType.EndArray;
    }

    /// <summary>Moves to an object's next name; false at its end.</summary>
    internal bool NextMember()
    {
        Next();
        return _json.TokenType != JsonTokenType.EndObject;
    }

    internal readonly string? Text() => IsNull ? null : Required(_json.TokenType == JsonTokenType.String) ? _json.GetString() : null;

    internal readonly bool? Flag() => IsNull ? null : Required(_json.TokenType is JsonTokenType.True or JsonTokenType.False) && _json.GetBoolean();

    internal readonly int? Int32() => IsNull ? null : IsNumber && _json.TryGetInt32(out int value) ? value : throw Mismatch();

    internal readonly uint? UInt32() => IsNull ? null : IsNumber && _json.TryGetUInt32(out uint value) ? value : throw Mismatch();

    internal readonly ushort? UInt16() => IsNull ? null : IsNumber && _json.TryGetUInt16(out ushort value) ? value : throw Mismatch();

    internal readonly long? Int64() => IsNull ? null : IsNumber && _json.TryGetInt64(out long value) ? value : throw Mismatch();

    internal readonly ulong? UInt64() => IsNull ? null : IsNumber && _json.TryGetUInt64(out ulong value) ? value : throw Mismatch();

    /// <summary>A moment by ISO 8601; null is refused.</summary>
    internal readonly DateTimeOffset Time() =>
        Required(_json.TokenType == JsonTokenType.String) && _json.TryGetDateTimeOffset(out DateTimeOffset time) ? time : throw Mismatch();

    /// <summary>Any value; also null.</summary>
    internal JsonElement Element() => JsonElement.ParseValue(ref _json);

    /// <summary>Any value; null for null.</summary>
    internal JsonElement? ElementOrNull() => IsNull ? null : Element();

    /// <summary>The error of the value on which the reader stands.</summary>
    internal readonly MismatchException Mismatch(string what = WrongType) => new(what, _json.BytesConsumed);

    private void Next() => Require(_json.Read());

    private readonly void Require(bool condition) => _ = Required(condition);

    private readonly bool Required(bool condition) => condition ? true : throw Mismatch();
}
