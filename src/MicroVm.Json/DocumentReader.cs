using System.Text.Json;

namespace MicroVm.Json;

/// <summary>
/// Values of a document that is as it should be; it stands on the value to be read, afterwards on its last token. A value that is null
/// is null.
/// </summary>
/// <remarks>Whatever is not as it should be throws a <see cref="JsonException"/> that does not say where.</remarks>
public ref struct DocumentReader(ReadOnlySpan<byte> json)
{
    private Utf8JsonReader _json = new(json);

    private readonly bool IsNull => _json.TokenType == JsonTokenType.Null;

    /// <summary>Moves to the next token; there must be one.</summary>
    internal void Next() => Require(_json.Read());

    /// <summary>Asserts that the document ends here.</summary>
    internal void End() => Require(!_json.Read());

    /// <summary>Whether the reader stands on the name of this member.</summary>
    internal readonly bool NameIs(string name) => _json.ValueTextEquals(name);

    /// <summary>A text.</summary>
    public readonly string? Text() => IsNull ? null : Required(_json.TokenType == JsonTokenType.String) ? _json.GetString() : null;

    /// <summary>true or false.</summary>
    public readonly bool? Flag() => IsNull ? null : Required(_json.TokenType is JsonTokenType.True or JsonTokenType.False) && _json.GetBoolean();

    /// <summary>A whole number.</summary>
    public readonly int? Int32() => IsNull ? null : IsNumber() && _json.TryGetInt32(out int value) ? value : throw Mismatch();

    /// <summary>A whole number.</summary>
    public readonly uint? UInt32() => IsNull ? null : IsNumber() && _json.TryGetUInt32(out uint value) ? value : throw Mismatch();

    /// <summary>A whole number.</summary>
    public readonly long? Int64() => IsNull ? null : IsNumber() && _json.TryGetInt64(out long value) ? value : throw Mismatch();

    /// <summary>A whole number.</summary>
    public readonly ulong? UInt64() => IsNull ? null : IsNumber() && _json.TryGetUInt64(out ulong value) ? value : throw Mismatch();

    /// <summary>A whole number.</summary>
    public readonly ushort? UInt16() => IsNull ? null : IsNumber() && _json.TryGetUInt16(out ushort value) ? value : throw Mismatch();

    /// <summary>Anything.</summary>
    public JsonElement? Element() => IsNull ? null : JsonElement.ParseValue(ref _json);

    /// <summary>A list of texts.</summary>
    public List<string>? Texts()
    {
        if (!BeginsArray())
        {
            return null;
        }

        List<string> texts = [];
        while (NextElement())
        {
            // A null is refused where it is looked at, by its place in the list.
            texts.Add(Text()!);
        }

        return texts;
    }

    /// <summary>A list of whole numbers.</summary>
    public List<uint>? Numbers()
    {
        if (!BeginsArray())
        {
            return null;
        }

        List<uint> numbers = [];
        while (NextElement())
        {
            numbers.Add(UInt32() ?? throw Mismatch());
        }

        return numbers;
    }

    /// <summary>A list of objects.</summary>
    public List<T>? List<T>(Members<T> members)
        where T : class
    {
        if (!BeginsArray())
        {
            return null;
        }

        List<T> list = [];
        while (NextElement())
        {
            list.Add(Object(members)!);
        }

        return list;
    }

    /// <summary>An object.</summary>
    public T? Object<T>(Members<T> members)
        where T : class
    {
        if (!BeginsObject())
        {
            return null;
        }

        T value = members.Create();
        while (NextMember())
        {
            if (!members.TryRead(value, ref this))
            {
                Require(members.PassOthers);
                Next();
                _json.Skip();
            }
        }

        Require(members.IsWhole?.Invoke(value) ?? true);
        return value;
    }

    /// <summary>An object of texts.</summary>
    public SortedDictionary<string, string>? TextMap()
    {
        if (!BeginsObject())
        {
            return null;
        }

        SortedDictionary<string, string> map = [];
        while (NextMember())
        {
            string name = Name();
            map[name] = Text()!;
        }

        return map;
    }

    /// <summary>An object of objects.</summary>
    public SortedDictionary<string, T>? Map<T>(Members<T> members)
        where T : class
    {
        if (!BeginsObject())
        {
            return null;
        }

        SortedDictionary<string, T> map = [];
        while (NextMember())
        {
            string name = Name();
            map[name] = Object(members)!;
        }

        return map;
    }

    /// <summary>An object of anything.</summary>
    public SortedDictionary<string, JsonElement>? ElementMap()
    {
        if (!BeginsObject())
        {
            return null;
        }

        SortedDictionary<string, JsonElement> map = [];
        while (NextMember())
        {
            string name = Name();
            map[name] = JsonElement.ParseValue(ref _json);
        }

        return map;
    }

    private static void Require(bool condition)
    {
        if (!condition)
        {
            throw Mismatch();
        }
    }

    private static bool Required(bool condition) => condition ? true : throw Mismatch();

    /// <summary>What to throw for a value that is not as it should be.</summary>
    public static JsonException Mismatch() => new();

    private readonly bool IsNumber() => _json.TokenType == JsonTokenType.Number;

    private readonly bool BeginsArray() => !IsNull && Required(_json.TokenType == JsonTokenType.StartArray);

    private readonly bool BeginsObject() => !IsNull && Required(_json.TokenType == JsonTokenType.StartObject);

    private bool NextElement()
    {
        Next();
        return _json.TokenType != JsonTokenType.EndArray;
    }

    private bool NextMember()
    {
        Next();
        return _json.TokenType != JsonTokenType.EndObject;
    }

    /// <summary>The member's name, from which the reader moves on to its value.</summary>
    private string Name()
    {
        string name = _json.GetString()!;
        Next();
        return name;
    }
}
