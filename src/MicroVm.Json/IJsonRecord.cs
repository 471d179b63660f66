namespace MicroVm.Json;

/// <summary>A type that travels as a JSON object: it lists its members once, for reading and for writing.</summary>
public interface IJsonRecord
{
    /// <summary>
    /// A row for each member, <c>X = members.Text("x"u8, X)</c>: reading, it takes the value of the document's member of that name, or
    /// leaves the member as it is; writing, it writes the member.
    /// </summary>
    void Members(ref JsonMembers members);

    /// <summary>Name of a member that it must have and has not; asked after reading.</summary>
    string? Missing => null;
}

/// <summary>A record that is a document of its own: it makes the empty one that is read into.</summary>
/// <typeparam name="T">The record itself.</typeparam>
public interface IJsonDocument<T> : IJsonRecord
    where T : class, IJsonDocument<T>
{
    /// <summary>One without its members; what it must have is checked by <see cref="IJsonRecord.Missing"/>.</summary>
    static abstract T Empty();
}
