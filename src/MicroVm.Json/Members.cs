namespace MicroVm.Json;

/// <summary>Reads a value and puts it into its place.</summary>
/// <param name="target">The object.</param>
/// <param name="json">Stands on the value.</param>
public delegate void MemberReader<in T>(T target, ref DocumentReader json);

/// <summary>The members of an object: their names, and how each is read.</summary>
/// <param name="create">Makes an empty object.</param>
/// <param name="members">Its members.</param>
public sealed class Members<T>(Func<T> create, params (string Name, MemberReader<T> Read)[] members)
    where T : class
{
    /// <summary>Whether members that are not in the table are passed over; else the document is not as it should be.</summary>
    public bool PassOthers { get; init; }

    /// <summary>Whether an object has what it must have.</summary>
    public Predicate<T>? IsWhole { get; init; }

    internal T Create() => create();

    /// <summary>Reads the member on whose name the reader stands; false when it is unknown.</summary>
    internal bool TryRead(T target, ref DocumentReader json)
    {
        foreach ((string name, MemberReader<T> read) in members)
        {
            if (json.NameIs(name))
            {
                json.Next();
                read(target, ref json);
                return true;
            }
        }

        return false;
    }
}

/// <summary>Tables of members.</summary>
public static class Members
{
    /// <summary>Of an object of which nothing must be there; what a document has beside its members is passed over.</summary>
    public static Members<T> Of<T>(params (string Name, MemberReader<T> Read)[] members)
        where T : class, new() => new(static () => new T(), members) { PassOthers = true };
}
