namespace MicroVm.Oci.Config.Reading;

/// <summary>Reads a value and puts it into its place.</summary>
internal delegate void MemberReader<in T>(T target, ref SpecJsonReader json);

/// <summary>The members of an object: their names, and how each is read. What a document has beside them is passed over.</summary>
internal sealed class Members<T>(params (string Name, MemberReader<T> Read)[] members)
    where T : class, new()
{
    /// <summary>Reads the member on whose name the reader stands; false when it is unknown.</summary>
    internal bool TryRead(T target, ref SpecJsonReader json)
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
