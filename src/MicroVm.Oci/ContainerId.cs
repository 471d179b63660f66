namespace MicroVm.Oci;

/// <summary>Rules for container ids: runc's.</summary>
public static class ContainerId
{
    private const int MaxLength = 1024;

    /// <summary>Throws unless <paramref name="id"/> can name a container.</summary>
    /// <exception cref="SpecException">It is empty, too long, a dot name, or has other characters than letters, digits and <c>_+-.</c></exception>
    public static void Check(string id)
    {
        ArgumentNullException.ThrowIfNull(id);
        if (id.Length == 0)
        {
            throw new SpecException("container id cannot be empty");
        }

        if (id.Length > MaxLength || id is "." or ".." || id.AsSpan().ContainsAnyExcept(Allowed))
        {
            throw new SpecException("invalid container ID format");
        }
    }

    private static readonly System.Buffers.SearchValues<char> Allowed = System.Buffers.SearchValues.Create(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.");
}
