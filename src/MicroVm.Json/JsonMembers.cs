using System.Text.Json;

namespace MicroVm.Json;

/// <summary>
/// The members of an object that is read or written (<see cref="IJsonRecord.Members"/>). Reading, it stands on a member's name, and
/// the row of that name takes the value. A value that is null is null; a member that is null is not written.
/// </summary>
/// <remarks>
/// A document that is not as it should be throws a <see cref="JsonException"/> that does not say where; an
/// <see cref="InvalidOperationException"/> where a string is not valid Unicode.
/// </remarks>
public ref struct JsonMembers
{
    private readonly Utf8JsonWriter? _writer;
    private readonly bool _passOthers;
    private Utf8JsonReader _json;
    private bool _found;

    private JsonMembers(Utf8JsonWriter writer) => _writer = writer;

    private JsonMembers(Utf8JsonReader json, bool passOthers)
    {
        _json = json;
        _passOthers = passOthers;
    }

    private readonly bool IsNull => _json.TokenType == JsonTokenType.Null;

    /// <summary>Reads a whole document; null for null.</summary>
    /// <param name="json">The document.</param>
    /// <param name="passOthers">Whether members without a row are passed over; else the document is not as it should be.</param>
    /// <param name="create">Makes an empty object.</param>
    public static T? Read<T>(ReadOnlySpan<byte> json, bool passOthers, Func<T> create)
        where T : class, IJsonRecord
    {
        JsonMembers members = new(new Utf8JsonReader(json), passOthers);
        members.Next();
        T? value = members.ReadObject(create);
        Require(!members._json.Read());
        return value;
    }

    /// <summary>Reads an object within a document; null for null.</summary>
    /// <param name="json">Stands on the value; afterwards on its last token.</param>
    /// <param name="passOthers">As for a document.</param>
    public static T? Read<T>(ref Utf8JsonReader json, bool passOthers)
        where T : class, IJsonRecord, new()
    {
        JsonMembers members = new(json, passOthers);
        T? value = members.ReadObject(static () => new T());
        json = members._json;
        return value;
    }

    /// <summary>Writes an object.</summary>
    public static void Write<T>(Utf8JsonWriter writer, T value)
        where T : class, IJsonRecord
    {
        ArgumentNullException.ThrowIfNull(writer);
        JsonMembers members = new(writer);
        members.WriteObject(value);
    }

    /// <summary>A text.</summary>
    public string? Text(ReadOnlySpan<byte> name, string? value)
    {
        if (_writer is null)
        {
            return Is(name) ? ReadText() : value;
        }

        if (value is not null)
        {
            _writer.WriteString(name, value);
        }

        return value;
    }

    /// <summary>A text that must not be null.</summary>
    public string NonNullText(ReadOnlySpan<byte> name, string value)
    {
        if (_writer is null)
        {
            return Is(name) ? ReadText() ?? throw Mismatch() : value;
        }

        _writer.WriteString(name, value);
        return value;
    }

    /// <summary>true or false.</summary>
    public bool? Flag(ReadOnlySpan<byte> name, bool? value)
    {
        if (_writer is null)
        {
            return Is(name) ? ReadFlag() : value;
        }

        if (value is { } flag)
        {
            _writer.WriteBoolean(name, flag);
        }

        return value;
    }

    /// <summary>true or false, not null.</summary>
    public bool Flag(ReadOnlySpan<byte> name, bool value) => Flag(name, (bool?)value) ?? throw Mismatch();

    /// <summary>A whole number.</summary>
    public int? Number(ReadOnlySpan<byte> name, int? value) =>
        _writer is not null ? (int?)Put(name, value) : Is(name) ? ReadInt32() : value;

    /// <summary>A whole number.</summary>
    public uint? Number(ReadOnlySpan<byte> name, uint? value) =>
        _writer is not null ? (uint?)Put(name, value) : Is(name) ? ReadUInt32() : value;

    /// <summary>A whole number.</summary>
    public ushort? Number(ReadOnlySpan<byte> name, ushort? value) =>
        _writer is not null ? (ushort?)Put(name, value) : Is(name) ? ReadUInt16() : value;

    /// <summary>A whole number.</summary>
    public long? Number(ReadOnlySpan<byte> name, long? value) =>
        _writer is not null ? Put(name, value) : Is(name) ? ReadInt64() : value;

    /// <summary>A whole number.</summary>
    public ulong? Number(ReadOnlySpan<byte> name, ulong? value)
    {
        if (_writer is null)
        {
            return Is(name) ? ReadUInt64() : value;
        }

        if (value is { } number)
        {
            _writer.WriteNumber(name, number);
        }

        return value;
    }

    /// <summary>A whole number, not null.</summary>
    public int Number(ReadOnlySpan<byte> name, int value) => Number(name, (int?)value) ?? throw Mismatch();

    /// <summary>A whole number, not null.</summary>
    public uint Number(ReadOnlySpan<byte> name, uint value) => Number(name, (uint?)value) ?? throw Mismatch();

    /// <summary>A whole number, not null.</summary>
    public long Number(ReadOnlySpan<byte> name, long value) => Number(name, (long?)value) ?? throw Mismatch();

    /// <summary>A value of an enumeration, by its name.</summary>
    public T Named<T>(ReadOnlySpan<byte> name, T value, NamedValues<T> names)
        where T : struct, Enum
    {
        ArgumentNullException.ThrowIfNull(names);
        if (_writer is null)
        {
            return Is(name) ? names.Find(ReadText()) ?? throw Mismatch() : value;
        }

        _writer.WriteString(name, names.Name(value));
        return value;
    }

    /// <summary>An object.</summary>
    public T? Object<T>(ReadOnlySpan<byte> name, T? value)
        where T : class, IJsonRecord, new() => Object(name, value, static () => new T());

    /// <summary>An object that <paramref name="create"/> makes.</summary>
    public T? Object<T>(ReadOnlySpan<byte> name, T? value, Func<T> create)
        where T : class, IJsonRecord
    {
        if (_writer is null)
        {
            return Is(name) ? ReadObject(create) : value;
        }

        if (value is not null)
        {
            _writer.WritePropertyName(name);
            WriteObject(value);
        }

        return value;
    }

    /// <summary>A list of objects, of which some may be null.</summary>
    public List<T>? Objects<T>(ReadOnlySpan<byte> name, List<T>? values)
        where T : class, IJsonRecord, new()
    {
        if (_writer is null)
        {
            return Is(name) ? ReadList(static () => new T()) : values;
        }

        if (values is not null)
        {
            WriteList(name, values);
        }

        return values;
    }

    /// <summary>A list of objects; neither it nor one of them is null.</summary>
    public IReadOnlyList<T> Objects<T>(ReadOnlySpan<byte> name, IReadOnlyList<T> values, Func<T> create)
        where T : class, IJsonRecord
    {
        ArgumentNullException.ThrowIfNull(values);
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            List<T> list = ReadList(create) ?? throw Mismatch();
            return list.Contains(null!) ? throw Mismatch() : list;
        }

        WriteList(name, values);
        return values;
    }

    /// <summary>A list of texts, of which some may be null: that is refused where it is looked at, by its place in the list.</summary>
    public List<string>? Texts(ReadOnlySpan<byte> name, List<string>? values)
    {
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!BeginsArray())
            {
                return null;
            }

            List<string> texts = [];
            while (NextElement())
            {
                texts.Add(ReadText()!);
            }

            return texts;
        }

        if (values is not null)
        {
            _writer.WriteStartArray(name);
            values.ForEach(_writer.WriteStringValue);
            _writer.WriteEndArray();
        }

        return values;
    }

    /// <summary>A list of whole numbers.</summary>
    public List<uint>? Numbers(ReadOnlySpan<byte> name, List<uint>? values)
    {
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!BeginsArray())
            {
                return null;
            }

            List<uint> numbers = [];
            while (NextElement())
            {
                numbers.Add(ReadUInt32() ?? throw Mismatch());
            }

            return numbers;
        }

        if (values is not null)
        {
            _writer.WriteStartArray(name);
            values.ForEach(_writer.WriteNumberValue);
            _writer.WriteEndArray();
        }

        return values;
    }

    /// <summary>An object of texts.</summary>
    public SortedDictionary<string, string>? TextMap(ReadOnlySpan<byte> name, SortedDictionary<string, string>? values)
    {
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, string> map = [];
            while (NextMember())
            {
                string key = Key();
                map[key] = ReadText()!;
            }

            return map;
        }

        if (values is not null)
        {
            _writer.WriteStartObject(name);
            foreach ((string key, string value) in values)
            {
                _writer.WriteString(key, value);
            }

            _writer.WriteEndObject();
        }

        return values;
    }

    /// <summary>An object of objects.</summary>
    public SortedDictionary<string, T>? ObjectMap<T>(ReadOnlySpan<byte> name, SortedDictionary<string, T>? values)
        where T : class, IJsonRecord, new()
    {
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, T> map = [];
            while (NextMember())
            {
                string key = Key();
                map[key] = ReadObject(static () => new T())!;
            }

            return map;
        }

        if (values is not null)
        {
            _writer.WriteStartObject(name);
            foreach ((string key, T value) in values)
            {
                _writer.WritePropertyName(key);
                WriteObject(value);
            }

            _writer.WriteEndObject();
        }

        return values;
    }

    /// <summary>Anything.</summary>
    public JsonElement? Element(ReadOnlySpan<byte> name, JsonElement? value)
    {
        if (_writer is null)
        {
            return !Is(name) ? value : IsNull ? (JsonElement?)null : JsonElement.ParseValue(ref _json);
        }

        if (value is { } element)
        {
            _writer.WritePropertyName(name);
            element.WriteTo(_writer);
        }

        return value;
    }

    /// <summary>An object of anything.</summary>
    public SortedDictionary<string, JsonElement>? ElementMap(ReadOnlySpan<byte> name, SortedDictionary<string, JsonElement>? values)
    {
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, JsonElement> map = [];
            while (NextMember())
            {
                string key = Key();
                map[key] = JsonElement.ParseValue(ref _json);
            }

            return map;
        }

        if (values is not null)
        {
            _writer.WriteStartObject(name);
            foreach ((string key, JsonElement value) in values)
            {
                _writer.WritePropertyName(key);
                value.WriteTo(_writer);
            }

            _writer.WriteEndObject();
        }

        return values;
    }

    private static void Require(bool condition)
    {
        if (!condition)
        {
            throw Mismatch();
        }
    }

    private static bool Required(bool condition) => condition ? true : throw Mismatch();

    private static JsonException Mismatch() => new();

    /// <summary>Whether the reader stands on the name of this member; it is on its value then.</summary>
    private bool Is(ReadOnlySpan<byte> name)
    {
        if (_found || !_json.ValueTextEquals(name))
        {
            return false;
        }

        _found = true;
        Next();
        return true;
    }

    private void Next() => Require(_json.Read());

    private readonly bool IsNumber() => _json.TokenType == JsonTokenType.Number;

    private readonly string? ReadText() => IsNull ? null : Required(_json.TokenType == JsonTokenType.String) ? _json.GetString() : null;

    private readonly bool? ReadFlag() => IsNull ? null : Required(_json.TokenType is JsonTokenType.True or JsonTokenType.False) && _json.GetBoolean();

    private readonly int? ReadInt32() => IsNull ? null : IsNumber() && _json.TryGetInt32(out int value) ? value : throw Mismatch();

    private readonly ushort? ReadUInt16() => IsNull ? null : IsNumber() && _json.TryGetUInt16(out ushort value) ? value : throw Mismatch();

    private readonly long? ReadInt64() => IsNull ? null : IsNumber() && _json.TryGetInt64(out long value) ? value : throw Mismatch();

    private readonly ulong? ReadUInt64() => IsNull ? null : IsNumber() && _json.TryGetUInt64(out ulong value) ? value : throw Mismatch();

    private readonly uint? ReadUInt32() => IsNull ? null : IsNumber() && _json.TryGetUInt32(out uint value) ? value : throw Mismatch();

    private T? ReadObject<T>(Func<T> create)
        where T : class, IJsonRecord
    {
        if (!BeginsObject())
        {
            return null;
        }

        T value = create();
        while (NextMember())
        {
            _found = false;
            value.Members(ref this);
            if (!_found)
            {
                Require(_passOthers);
                Next();
                _json.Skip();
            }
        }

        // The row of the object that this one is in has found it.
        _found = true;
        Require(value.IsWhole);
        return value;
    }

    private List<T>? ReadList<T>(Func<T> create)
        where T : class, IJsonRecord
    {
        if (!BeginsArray())
        {
            return null;
        }

        List<T> list = [];
        while (NextElement())
        {
            list.Add(ReadObject(create)!);
        }

        return list;
    }

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
    private string Key()
    {
        string name = _json.GetString()!;
        Next();
        return name;
    }

    private readonly long? Put(ReadOnlySpan<byte> name, long? value)
    {
        if (value is { } number)
        {
            _writer!.WriteNumber(name, number);
        }

        return value;
    }

    private void WriteObject<T>(T? value)
        where T : class, IJsonRecord
    {
        if (value is null)
        {
            _writer!.WriteNullValue();
            return;
        }

        _writer!.WriteStartObject();
        value.Members(ref this);
        _writer!.WriteEndObject();
    }

    private void WriteList<T>(ReadOnlySpan<byte> name, IReadOnlyList<T> values)
        where T : class, IJsonRecord
    {
        _writer!.WriteStartArray(name);
        for (int i = 0; i < values.Count; i++)
        {
            WriteObject(values[i]);
        }

        _writer!.WriteEndArray();
    }
}
