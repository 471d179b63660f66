namespace MicroVm.Json;

/// <summary>A type that travels as a JSON object: it lists its members once, for reading and for writing.</summary>
public interface IJsonRecord
{
    /// <summary>
    /// A row for each member, <c>X = members.Text("x"u8, X)</c>: reading, it takes the value of the document's member of that name, or
    /// leaves the member as it is; writing, it writes the member.
    /// </summary>
    void Members(ref JsonMembers members);

    /// <summary>Whether it has what it must have; asked after reading.</summary>
    bool IsWhole => true;
}
