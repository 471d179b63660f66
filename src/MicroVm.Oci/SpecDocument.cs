using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Oci.Config.Reading;

namespace MicroVm.Oci;

/// <summary>
/// A kind of document, and how it is read: by tables of its members, since to set the serializer up for the specification takes longer
/// than all else that a command does with it. What the tables find wrong is left to the serializer, which can say where it is.
/// </summary>
/// <typeparam name="T">The document's model.</typeparam>
public sealed class SpecDocument<T>
    where T : class, new()
{
    private readonly Members<T> _members;
    private readonly Func<JsonTypeInfo<T>> _serializer;

    internal SpecDocument(Members<T> members, Func<JsonTypeInfo<T>> serializer)
    {
        _members = members;
        _serializer = serializer;
    }

    /// <summary>Reads a whole document; null for null.</summary>
    /// <exception cref="JsonException">It is malformed, or a member has a wrong type.</exception>
    public T? Read(ReadOnlySpan<byte> json) => TryRead(json) ?? JsonSerializer.Deserialize(json, _serializer());

    /// <summary>Reads a whole document by the tables alone; null when it is not as it should be.</summary>
    public T? TryRead(ReadOnlySpan<byte> json) => Members.TryRead(json, _members);
}

/// <summary>The kinds of documents.</summary>
public static class SpecDocument
{
    /// <summary>A bundle's config.json.</summary>
    public static SpecDocument<Spec> Config => new(SpecMembers.Spec, static () => SpecJson.Default.Spec);

    /// <summary>A process of <c>exec</c>.</summary>
    public static SpecDocument<Process> Process => new(ProcessMembers.Process, static () => SpecJson.Default.Process);

    /// <summary>Limits of <c>update</c>.</summary>
    public static SpecDocument<Resources> Resources => new(ResourcesMembers.Resources, static () => SpecJson.Default.Resources);
}
