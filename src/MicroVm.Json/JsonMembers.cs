using System.Text.Json;

namespace MicroVm.Json;

/// <summary>
/// The members of an object that is read or written (<see cref="IJsonRecord.Members"/>). Reading, it stands on a member's name, and
/// the row of that name takes the value. A value that is null is null; a member that is null is not written.
/// </summary>
/// <remarks>
/// A malformed document throws: a <see cref="MismatchException"/> where a value is not what its row expects, the
/// reader's <see cref="JsonException"/> where the text is not JSON, an <see cref="InvalidOperationException"/> where a string is not valid
/// Unicode. <see cref="TableDocument{T}"/> and <see cref="JsonRecords"/> make one exception of them that names the place.
/// </remarks>
public ref struct JsonMembers
{
    private readonly Utf8JsonWriter? _writer;
    private readonly bool _passOthers;
    private JsonValueReader _json;
    private bool _found;

    private JsonMembers(Utf8JsonWriter writer) => _writer = writer;

    private JsonMembers(JsonValueReader json, bool passOthers)
    {
        _json = json;
        _passOthers = passOthers;
    }

    /// <summary>Reads a whole document; null for null.</summary>
    /// <param name="json">The document.</param>
    /// <param name="passOthers">Whether members without a row are passed over; else the document is malformed.</param>
    /// <param name="create">Makes an empty object.</param>
    public static T? Read<T>(ReadOnlySpan<byte> json, bool passOthers, Func<T> create)
        where T : class, IJsonRecord
    {
        JsonMembers members = new(new JsonValueReader(json), passOthers);
        T? value = members.ReadObject(create);
        members._json.End();
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
            return Is(name) ? _json.Text() : value;
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
            return Is(name) ? _json.Text() ?? throw _json.Mismatch() : value;
        }

        _writer.WriteString(name, value);
        return value;
    }

    /// <summary>true or false.</summary>
    public bool? Flag(ReadOnlySpan<byte> name, bool? value)
    {
        if (_writer is null)
        {
            return Is(name) ? _json.Flag() : value;
        }

        if (value is { } flag)
        {
            _writer.WriteBoolean(name, flag);
        }

        return value;
    }

    /// <summary>true or false, not null.</summary>
    public bool Flag(ReadOnlySpan<byte> name, bool value) => Flag(name, (bool?)value) ?? throw _json.Mismatch();

    /// <summary>A whole number.</summary>
    public int? Number(ReadOnlySpan<byte> name, int? value) =>
        _writer is not null ? (int?)Put(name, value) : Is(name) ? _json.Int32() : value;

    /// <summary>A whole number.</summary>
    public uint? Number(ReadOnlySpan<byte> name, uint? value) =>
        _writer is not null ? (uint?)Put(name, value) : Is(name) ? _json.UInt32() : value;

    /// <summary>A whole number.</summary>
    public ushort? Number(ReadOnlySpan<byte> name, ushort? value) =>
        _writer is not null ? (ushort?)Put(name, value) : Is(name) ? _json.UInt16() : value;

    /// <summary>A whole number.</summary>
    public long? Number(ReadOnlySpan<byte> name, long? value) =>
        _writer is not null ? Put(name, value) : Is(name) ? _json.Int64() : value;

    /// <summary>A whole number.</summary>
    public ulong? Number(ReadOnlySpan<byte> name, ulong? value)
    {
        if (_writer is null)
        {
            return Is(name) ? _json.UInt64() : value;
        }

        if (value is { } number)
        {
            _writer.WriteNumber(name, number);
        }

        return value;
    }

    /// <summary>A whole number, not null.</summary>
    public int Number(ReadOnlySpan<byte> name, int value) => Number(name, (int?)value) ?? throw _json.Mismatch();

    /// <summary>A whole number, not null.</summary>
    public uint Number(ReadOnlySpan<byte> name, uint value) => Number(name, (uint?)value) ?? throw _json.Mismatch();

    /// <summary>A whole number, not null.</summary>
    public long Number(ReadOnlySpan<byte> name, long value) => Number(name, (long?)value) ?? throw _json.Mismatch();

    /// <summary>A whole number, not null.</summary>
    public ulong Number(ReadOnlySpan<byte> name, ulong value) => Number(name, (ulong?)value) ?? throw _json.Mismatch();

    /// <summary>A moment, as ISO 8601 writes it; not null.</summary>
    public DateTimeOffset Time(ReadOnlySpan<byte> name, DateTimeOffset value)
    {
        if (_writer is null)
        {
            return !Is(name) ? value : _json.Time();
        }

        _writer.WriteString(name, value);
        return value;
    }

    /// <summary>A value of an enumeration, by its name.</summary>
    public T Named<T>(ReadOnlySpan<byte> name, T value, NamedValues<T> names)
        where T : struct, Enum
    {
        ArgumentNullException.ThrowIfNull(names);
        if (_writer is null)
        {
            return Is(name) ? names.Find(_json.Text()) ?? throw _json.Mismatch() : value;
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

            const string isNull = "a list, or an element of one, is null";
            List<T> list = ReadList(create) ?? throw _json.Mismatch(isNull);
            return list.Contains(null!) ? throw _json.Mismatch(isNull) : list;
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

            if (!_json.BeginsArray())
            {
                return null;
            }

            List<string> texts = [];
            while (_json.NextElement())
            {
                texts.Add(_json.Text()!);
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

            if (!_json.BeginsArray())
            {
                return null;
            }

            List<uint> numbers = [];
            while (_json.NextElement())
            {
                numbers.Add(_json.UInt32() ?? throw _json.Mismatch());
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

            if (!_json.BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, string> map = [];
            while (_json.NextMember())
            {
                string key = _json.Key();
                map[key] = _json.Text()!;
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

    /// <summary>An object of whole numbers, not null.</summary>
    public IReadOnlyDictionary<string, long> NumberMap(ReadOnlySpan<byte> name, IReadOnlyDictionary<string, long> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        if (_writer is null)
        {
            if (!Is(name))
            {
                return values;
            }

            if (!_json.BeginsObject())
            {
                throw _json.Mismatch();
            }

            Dictionary<string, long> map = [];
            while (_json.NextMember())
            {
                string key = _json.Key();
                map[key] = _json.Int64() ?? throw _json.Mismatch();
            }

            return map;
        }

        _writer.WriteStartObject(name);
        foreach ((string key, long value) in values)
        {
            _writer.WriteNumber(key, value);
        }

        _writer.WriteEndObject();
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

            if (!_json.BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, T> map = [];
            while (_json.NextMember())
            {
                string key = _json.Key();
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
            return !Is(name) ? value : _json.ElementOrNull();
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

            if (!_json.BeginsObject())
            {
                return null;
            }

            SortedDictionary<string, JsonElement> map = [];
            while (_json.NextMember())
            {
                string key = _json.Key();
                map[key] = _json.Element();
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

    /// <summary>Whether the reader stands on the name of this member; it is on its value then.</summary>
    private bool Is(ReadOnlySpan<byte> name)
    {
        if (_found || !_json.TryEnter(name))
        {
            return false;
        }

        _found = true;
        return true;
    }

    private T? ReadObject<T>(Func<T> create)
        where T : class, IJsonRecord
    {
        if (!_json.BeginsObject())
        {
            return null;
        }

        T value = create();
        while (_json.NextMember())
        {
            _found = false;
            value.Members(ref this);
            if (!_found)
            {
                if (!_passOthers)
                {
                    throw _json.Mismatch("unknown field");
                }

                _json.SkipMember();
            }
        }

        // The row of the object that this one is in has found it.
        _found = true;
        return value.Missing is { } missing ? throw _json.Mismatch($"a required field is missing: '{missing}'") : value;
    }

    private List<T>? ReadList<T>(Func<T> create)
        where T : class, IJsonRecord
    {
        if (!_json.BeginsArray())
        {
            return null;
        }

        List<T> list = [];
        while (_json.NextElement())
        {
            list.Add(ReadObject(create)!);
        }

        return list;
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
